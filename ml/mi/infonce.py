"""The InfoNCE bound, measured so that it can be believed: held out, in-batch, both directions, temperature calibrated apart.

I(v1; v2) >= I_NCE = log K - L_NCE, where K counts the candidates with the positive among them. van den Oord, Li, Vinyals 2018;
as a bound in Poole et al. 2019, section 2.3.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from scipy.optimize import minimize_scalar
from torch import Generator, Tensor

from ml.mi import Estimate


def info_nce(
    scores: Sequence[Float[Tensor, "K K"]] | Float[Tensor, "R K K"], items: Sequence[Int64[Tensor, " K"]] | Int64[Tensor, "R K"]
) -> Estimate:
    """The estimate from batches of scores, positives on the diagonal; `items` says which item each positive pair came from.

    Best with scores = log p(v2 | v1) / p(v2) + any function of v1.
    """
    return from_contributions(torch.cat([contributions(batch) for batch in scores]), torch.cat(list(items)), k=len(scores[0]))


def from_contributions(contributions: Float[Tensor, " P"], items: Int64[Tensor, " P"], k: int) -> Estimate:
    """The estimate from what each pair contributed; the pairs of one item are averaged, and items count equally."""
    log_k = math.log(k)
    _, which = items.unique(return_inverse=True)
    pairs = torch.bincount(which)
    means = torch.bincount(which, weights=contributions.double()) / pairs
    value = means.mean().item()
    return Estimate(
        value=value,
        stderr=(means.std() / math.sqrt(len(means))).item(),
        log_k=log_k,
        low=value > log_k - 2.5,
        saturated=value > log_k - 1,
        kind="lower",
        caution=_caution(value, log_k),
    )


def _caution(value: float, log_k: float) -> str | None:
    if value > log_k - 1:
        return f"within 1 nat of the ceiling of {log_k:.2f} nats: read it as `at least`"
    return f"within 2.5 nats of the ceiling of {log_k:.2f} nats: it may be more than 5 % low" if value > log_k - 2.5 else None


def contributions(scores: Float[Tensor, "K K"]) -> Float[Tensor, " K"]:
    """log K - cross-entropy for each pair, mean of the two directions: at most log K. In float64, so that 0 reads 0."""
    scores = scores.double()
    positives = scores.diagonal()
    return math.log(len(scores)) + positives - (scores.logsumexp(dim=0) + scores.logsumexp(dim=1)) / 2


def fit_temperature(similarities: Sequence[Float[Tensor, "K K"]], trained_at: float, items: int) -> float:
    """The temperature at which the bound is highest on calibration pairs; the only thing that is refitted after training.

    It is sought from 0.001 to 1000: at the upper end all candidates score alike and the bound reads 0. The pairs are of so many
    `items`; a few of them are soon told apart without a mistake, and would have the critic surer than it may be of others. So
    temperatures below the one of training bear the weight of one observation against them, log-normal with deviation 1, which is
    nothing beside hundreds of items.
    """

    def loss(log_temperature: float) -> float:
        batches = [contributions(batch.double() / math.exp(log_temperature)) for batch in similarities]
        surer = max(math.log(trained_at) - log_temperature, 0)
        return -torch.cat(batches).mean().item() + surer**2 / (2 * items)

    fit = minimize_scalar(loss, bounds=(math.log(1e-3), math.log(1e3)), method="bounded", options={"xatol": 1e-3})
    return math.exp(fit.x)


def candidate_batches(items: int, k: int, rounds: int, generator: Generator) -> Iterator[Int64[Tensor, " K"]]:
    """Batches of `k` distinct items out of `items`: in each round, as many disjoint ones as there are."""
    for _ in range(rounds):
        order = torch.randperm(items, generator=generator, device=generator.device)
        yield from order[: items // k * k].split(k)
