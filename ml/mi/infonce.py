"""The InfoNCE bound, measured so that it can be believed: held out, in-batch, both directions, temperature calibrated apart.

I(v1; v2) >= I_NCE = log K - L_NCE, where K counts the candidates with the positive among them. van den Oord, Li, Vinyals 2018;
as a bound in Poole et al. 2019, section 2.3.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Generator, Tensor

from ml.mi import Estimate, temperature


def info_nce(
    scores: Sequence[Float[Tensor, "K K"]] | Float[Tensor, "R K K"], items: Sequence[Int64[Tensor, " K"]] | Int64[Tensor, "R K"]
) -> Estimate:
    """The estimate from batches of scores, positives on the diagonal; `items` says which item each positive pair came from.

    Best with scores = log p(v2 | v1) / p(v2) + any function of v1.
    """
    return from_contributions(torch.cat([contributions(batch) for batch in scores]), torch.cat(list(items)), k=len(scores[0]))


def from_contributions(contributions: Float[Tensor, " P"], items: Int64[Tensor, " P"], k: int) -> Estimate:
    """The estimate from what each pair contributed; the pairs of one item are averaged, and items count equally."""
    return from_items(by_item(contributions, items), math.log(k))


def by_item(contributions: Float[Tensor, " P"], items: Int64[Tensor, " P"]) -> Float64[Tensor, " N"]:
    """What the pairs of each item contributed on average, items in their order."""
    _, which = items.unique(return_inverse=True)
    return torch.bincount(which, weights=contributions.double()) / torch.bincount(which)


def from_items(means: Float64[Tensor, " N"], ceiling: float) -> Estimate:
    """The estimate from what each item contributed, judged by the log of the candidates that it was found among."""
    value = means.mean().item()
    return Estimate(
        value=value,
        stderr=(means.std() / math.sqrt(len(means))).item(),
        log_k=ceiling,
        low=value > ceiling - 2.5,
        saturated=value > ceiling - 1,
        kind="lower",
        caution=_caution(value, ceiling),
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


def fit_temperature(similarities: Sequence[Float[Tensor, "_ _"]], trained_at: float, items: int) -> float:
    """The temperature at which the bound is highest on calibration pairs of so many items.

    At the upper end of what is sought all candidates score alike and the bound reads 0.
    """

    def loss(fitted: float) -> float:
        return -torch.cat([contributions(batch.double() / fitted) for batch in similarities]).mean().item()

    return temperature.fit(loss, trained_at, items)


def candidate_batches(items: int, k: int, rounds: int, generator: Generator) -> Iterator[Int64[Tensor, " K"]]:
    """Batches of `k` distinct items out of `items`: in each round, as many disjoint ones as there are."""
    for _ in range(rounds):
        order = torch.randperm(items, generator=generator, device=generator.device)
        yield from order[: items // k * k].split(k)
