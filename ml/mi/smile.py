"""SMILE: Donsker-Varadhan with a clipped ratio."""

from jaxtyping import Float, Float64
from torch import Tensor

from ml.mi.strangers import by_item, exponentials, log_mean_exp

CLIP = 5.0


def contributions(scores: Float[Tensor, "B B"], clip: float = CLIP) -> Float64[Tensor, " B"]:
    """Estimate in nats as the mean over items: E[f] - log E[exp clip(f, -tau, tau)], the latter over strangers; `clip` is tau.

    Neither bound: clipping takes the variance away and adds what it cuts off, so that it reads too high above a few nats. f is a
    critic trained on the Jensen-Shannon bound, log p(y|x) / p(y) at best. Song, Ermon 2020, section 5.
    """
    clipped = scores.double().clamp(-clip, clip)
    log_mean = log_mean_exp(clipped)
    relative = by_item(exponentials(clipped - log_mean))  # of mean 1: the log's derivative
    return scores.diagonal().double() - log_mean - (relative - 1)
