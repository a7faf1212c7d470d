"""Multinomial logistic regression: its optimum, how strong a penalty it wants, and the field's way to it by SGD."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Generator, Tensor

PENALTY = 1.0  # on half the squared weights, beside the summed cross-entropy: scikit-learn's default C = 1
PENALTIES = tuple(10 ** (power / 2) for power in range(8, -1, -1))  # to choose from, 10^4 to 1: weaker ones did no better
FEWEST_TO_CHOOSE = 200  # labelled items; of fewer the choice would be chance, and it matters little what it is
PARTS = 5  # of the labelled items, one of which is held out at a time
HELD_OUT = 500  # items that decide a choice, where there are so many
GRADIENT = 1e-6  # of the mean loss, at which it is at its least
ROUGH = 1e-4  # enough to tell two penalties apart
ROUNDING = 1e-10  # of the largest variance, beneath which a direction is none

RATES = tuple(10 ** (power / 2) for power in range(-6, 1))  # of SGD, to choose from, 10^-3 to 1
EPOCHS = 100
BATCH = 256
FEWEST_BATCHES = 16  # in an epoch: of few labels a hundred steps would not be enough
MOMENTUM = 0.9

Weights = tuple[Float[Tensor, "F C"], Float[Tensor, " C"]]
"""Weights and biases."""


@dataclass(frozen=True, eq=False)
class Axes:
    """Inputs in coordinates whose products with one another average to 0, their mean squares, and what brings weights back."""

    inputs: Float64[Tensor, "N R"]
    variances: Float64[Tensor, " R"]
    back: Float64[Tensor, "F R"]


def principal(x: Float[Tensor, "N F"]) -> Axes:
    """The inputs along their principal axes about the origin.

    Of fewer items than features these are no more than items: the penalty leaves weights nothing outside of what items span.
    """
    x = x.double()
    if len(x) >= x.shape[1]:
        variances, back = torch.linalg.eigh(x.T @ x / len(x))
        return Axes(x @ back, variances.clamp(min=0), back)
    variances, turned = torch.linalg.eigh(x @ x.T / len(x))
    spanned = variances > ROUNDING * variances[-1]
    spanned[-1] = True
    variances = variances[spanned].clamp(min=torch.finfo(x.dtype).tiny)
    inputs = turned[:, spanned] * (len(x) * variances).sqrt()
    return Axes(inputs, variances, x.T @ (inputs / (len(x) * variances)))


def fit(axes: Axes, y: Int64[Tensor, " N"], classes: int, penalty: float = PENALTY) -> Weights:
    """What minimises the summed cross-entropy plus penalty / 2 |weights|^2, by L-BFGS in float64."""
    weights, biases = _minimise(axes.inputs, axes.variances, y, classes, penalty, GRADIENT)
    return axes.back @ weights, biases


def choose_penalty(axes: Axes, y: Int64[Tensor, " N"], classes: int, generator: Generator) -> float:
    """The one of PENALTIES under which labelled items that were held out have the least cross-entropy.

    Each is tried on as many fifths of the items as hold HELD_OUT, from the strongest on until one does worse. Of fewer items than
    FEWEST_TO_CHOOSE it is PENALTY.
    """
    if len(y) < FEWEST_TO_CHOOSE:
        return PENALTY
    inputs, variances = axes.inputs.float(), axes.variances.float()
    fifths = _order(len(y), generator, y.device).chunk(PARTS)
    splits = []
    for which, fifth in enumerate(fifths[: math.ceil(HELD_OUT * PARTS / len(y))]):
        rest = torch.cat((*fifths[:which], *fifths[which + 1 :])).sort().values
        known = fifth[torch.isin(y[fifth], y[rest])]  # of a class that the others lack nothing can be known
        splits.append((inputs[rest], y[rest], inputs[known], y[known]))
    fitted: list[Weights | None] = [None] * len(splits)
    losses: list[float] = []
    for penalty in PENALTIES:
        loss = 0.0
        for which, (x, labels, held_out, truth) in enumerate(splits):
            found = _minimise(x, variances, labels, classes, penalty, ROUGH, fitted[which])
            loss += _loss(found, held_out, truth)
            fitted[which] = found
        losses.append(loss)
        if loss > min(losses):
            break
    return PENALTIES[_lowest(losses)]


def fit_by_sgd(
    x: Float[Tensor, "N F"], y: Int64[Tensor, " N"], classes: int, penalty: float, generator: Generator
) -> tuple[Weights, float]:
    """The same as the field does it, in float32: EPOCHS of SGD with Nesterov momentum, cosine decay and weight decay.

    Also the learning rate: the one of RATES that ends lowest.
    """
    tried = _descend(x, y, classes, penalty, generator)
    best = _lowest([_loss(found, x, y) + penalty * found[0].square().sum().item() / 2 for found in tried])
    return tried[best], RATES[best]


def _minimise(
    inputs: Float[Tensor, "N R"],
    variances: Float[Tensor, " R"],
    y: Int64[Tensor, " N"],
    classes: int,
    penalty: float,
    gradient: float,
    start: Weights | None = None,
) -> Weights:
    """By L-BFGS, until no entry of the mean loss's gradient is larger.

    It is sought where the inputs are white but for the penalty, because features are strongly correlated: the optimum is the
    same, and it is found in half the time.
    """
    scale = (variances + penalty / len(inputs)).rsqrt()
    white, penalties = inputs * scale, penalty / len(inputs) * scale.square()
    if start is None:
        start = inputs.new_zeros(inputs.shape[1], classes), inputs.new_zeros(classes)
    weights = (start[0].T / scale).contiguous().requires_grad_()  # a class a row: gradients come four times as quickly
    biases = start[1].clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [weights, biases],
        max_iter=500,
        tolerance_grad=gradient,
        tolerance_change=1e-4 * gradient,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def mean_loss() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(F.linear(white, weights, biases), y) + (weights.square() @ penalties).sum() / 2
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(mean_loss)
    return (weights.detach() * scale).T, biases.detach()


def _descend(
    x: Float[Tensor, "N F"], y: Int64[Tensor, " N"], classes: int, penalty: float, generator: Generator
) -> list[Weights]:
    """By SGD with each of RATES, all on the same batches; with lower ones where the decay alone would step over 0."""
    x = x.float()
    batch_size = min(math.ceil(len(x) / FEWEST_BATCHES), BATCH)
    probes = [(x.new_zeros(classes, x.shape[1]).requires_grad_(), x.new_zeros(classes).requires_grad_()) for _ in RATES]
    decay = penalty / len(x)
    groups = []
    for rate, (weights, biases) in zip(RATES, probes, strict=True):
        groups += [
            {"params": [weights], "lr": min(rate, 1 / decay), "weight_decay": decay},
            {"params": [biases], "lr": rate},
        ]
    optimiser = torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS * math.ceil(len(x) / batch_size))
    with torch.enable_grad():
        for _ in range(EPOCHS):
            for batch in _order(len(x), generator, x.device).split(batch_size):
                logits = F.linear(x[batch], *(torch.cat(tensors) for tensors in zip(*probes, strict=True))).split(classes, dim=1)
                losses = [F.cross_entropy(of_rate, y[batch]) for of_rate in logits]
                optimiser.zero_grad()
                torch.stack(losses).sum().backward()
                optimiser.step()
                cosine.step()
    return [(weights.detach().T.double(), biases.detach().double()) for weights, biases in probes]


def _loss(weights: Weights, x: Float[Tensor, "N F"], y: Int64[Tensor, " N"]) -> float:
    """Summed cross-entropy."""
    return F.cross_entropy(x @ weights[0].to(x.dtype) + weights[1], y, reduction="sum").item()


def _lowest(losses: Sequence[float]) -> int:
    """Where the lowest is; what is not a number is none."""
    return min(range(len(losses)), key=lambda which: losses[which] if math.isfinite(losses[which]) else math.inf)


def _order(items: int, generator: Generator, device: torch.device) -> Int64[Tensor, " N"]:
    return torch.randperm(items, generator=generator, device=generator.device).to(device)
