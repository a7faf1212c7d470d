"""Difference of entropies."""

from jaxtyping import Float, Float64
from torch import Tensor


def contributions(log_marginal: Float[Tensor, " B"], log_conditional: Float[Tensor, " B"]) -> Float64[Tensor, " B"]:
    """Estimate in nats as the mean over items: held-out cross-entropy of y less that of y given x.

    From log q(y_i) and log q(y_i|x_i). Either cross-entropy is above its entropy by what its density is wrong, so the difference
    bounds nothing; exact when both densities are true. No ceiling and little variance. McAllester, Stratos 2020.
    """
    return log_conditional.double() - log_marginal.double()
