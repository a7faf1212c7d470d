"""The representation of Donsker and Varadhan, and how MINE trains it."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ml.mi.strangers import by_item, exponentials, log_mean_exp

DECAY = 0.99


def contributions(scores: Float[Tensor, "B B"]) -> Float64[Tensor, " B"]:
    """Estimate in nats as the mean over items: E[f] - log E[exp f], the latter over strangers.

    No bound, since the log of a sample's mean is too low; a lower bound in the limit of many strangers, tight when f is
    log p(y|x) / p(y) up to a constant. Donsker, Varadhan 1983; as I_DV in Poole et al. 2019, section 2.2.
    """
    log_mean = log_mean_exp(scores)
    relative = by_item(exponentials(scores.double() - log_mean))  # of mean 1: the log's derivative
    return scores.diagonal().double() - log_mean - (relative - 1)


def surrogate(
    scores: Float[Tensor, "B B"], running: Float64[Tensor, ""], decay: float = DECAY
) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """What MINE ascends, and the new log of the running mean of exp f.

    The gradient of log E[exp f] is E[f' exp f] / E[exp f], whose batch estimate is biased by its denominator; the running mean,
    minus infinity at first, takes its place. Only the gradient of the result means anything. Belghazi et al. 2018, section 3.2.
    """
    log_mean = log_mean_exp(scores)
    batch = log_mean.detach()
    running = torch.where(running.isneginf(), batch, torch.logaddexp(running + math.log(decay), batch + math.log1p(-decay)))
    return scores.diagonal().double().mean() - (log_mean - running).exp(), running
