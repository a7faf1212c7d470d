"""What a family of classifiers can tell of a class from a view: I_V(v; y) = H(y) - held-out cross-entropy, in nats.

The V-information of Xu, Zhao, Song, Stewart, Ermon 2020: a lower bound on I(v; y), which it reaches where the family has the
true p(y | v). A family may always leave v alone, so a classifier that knows nothing is flattened until it says how frequent the
classes are, and reads 0.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ml.mi import Estimate, temperature
from ml.tasks import logistic

TRAINED_AT = 1.0  # the temperature of cross-entropy


@dataclass(frozen=True)
class Probe:
    """I_V(v; y) by linear classifiers of a frozen encoder's features of the views, in nats."""

    v1: Estimate
    v2: Estimate
    both: Estimate
    """Of the features of both views side by side."""
    entropy: float
    """H(y): the held-out cross-entropy of the frequencies of the classes among training items."""
    fitted_on: int
    """Training items, drawn evenly."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a classifier says of held-out items: `calibration` sets its one temperature, `evaluation` is what it is judged on."""

    calibration: Float[Tensor, "M C"]
    evaluation: Float[Tensor, "N C"]


@dataclass(frozen=True, eq=False)
class Classes:
    """The true classes of those items, and the log frequencies of the classes among training items."""

    calibration: Int64[Tensor, " M"]
    evaluation: Int64[Tensor, " N"]
    log_frequencies: Float64[Tensor, " C"]

    def entropy(self) -> float:
        """H(y) in nats, as evaluation items tell it."""
        return -self.log_frequencies[self.evaluation].mean().item()


def log_frequencies(y: Int64[Tensor, " N"], classes: int) -> Float64[Tensor, " C"]:
    """Of each class, one more than there are: none is impossible for being absent. Laplace's rule of succession."""
    return ((torch.bincount(y, minlength=classes) + 1.0).double() / (len(y) + classes)).log()


def contributions(answers: Answers, classes: Classes) -> Float64[Tensor, " N"]:
    """log q(y | v) - log p(y) of each evaluation item: their mean is I_V(v; y).

    q is the classifier's answer at the temperature at which it says most of the calibration items; the hotter, the nearer to the
    frequencies p.
    """

    def at(fitted: float, logits: Tensor, y: Tensor) -> Tensor:
        p = classes.log_frequencies
        said = logits.double().log_softmax(dim=1) - p
        return (p + said / fitted).log_softmax(dim=1).gather(1, y[:, None])[:, 0] - p[y]

    fitted = temperature.fit(
        lambda fitted: -at(fitted, answers.calibration, classes.calibration).mean().item(), TRAINED_AT, len(classes.calibration)
    )
    return at(fitted, answers.evaluation, classes.evaluation)


def estimate(contributions: Float64[Tensor, " N"]) -> Estimate:
    """I_V(v; y) from what each evaluation item contributed."""
    return Estimate(contributions.mean().item(), (contributions.std() / math.sqrt(len(contributions))).item(), "lower")


def linear(
    train: Float[Tensor, "L F"], y: Int64[Tensor, " L"], held_out: Float[Tensor, "M F"], classes: int
) -> Float64[Tensor, "M C"]:
    """Log odds of the classes of held-out features, by multinomial logistic regression on features standardised in training."""
    mean, std = train.mean(dim=0), train.std(dim=0)
    std = torch.where(std > 1e-6, std, 1.0)
    weights, biases = logistic.fit(logistic.principal((train - mean) / std), y, classes)
    return ((held_out - mean) / std).double() @ weights + biases
