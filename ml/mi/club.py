"""The contrastive log-ratio upper bound."""

from jaxtyping import Float, Float64
from torch import Tensor

from ml.mi.strangers import by_item, without_pairs


def contributions(log_conditionals: Float[Tensor, "B B"]) -> Float64[Tensor, " B"]:
    """Upper bound in nats as the mean over items: E[log p(y|x)] over pairs less the same over strangers.

    `log_conditionals[i, j]` is log p(y_j|x_i). A bound where that is the true density, and a loose one: to be minimised, never to
    be reported. Tight where x and y are independent alone. Cheng et al. 2020, whose sample mean takes the pairs in among the
    strangers and so reads (B - 1) / B of this one, which is unbiased.
    """
    return log_conditionals.diagonal().double() - by_item(without_pairs(log_conditionals, 0.0))
