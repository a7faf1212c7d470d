"""The bound of Barber and Agakov, unnormalised: each y has a baseline of its own."""

from jaxtyping import Float, Float64
from torch import Tensor

from ml.mi.strangers import by_item, exponentials, pairs


def contributions(scores: Float[Tensor, "B B"], log_baseline: Float[Tensor, " B"]) -> Float64[Tensor, " B"]:
    """Lower bound in nats as the mean over items: 1 + E[f - log a(y)] - E[exp f / a(y)], the latter over strangers.

    `log_baseline` is log a(y_j) of each column, and may be any function of y that was not chosen on these items. Tight when a(y)
    is the mean of exp f(x, y) over x, and f is log p(y|x) up to a function of y; with a = e it is NWJ. f - log a counts up to
    `strangers.LARGEST`. As I_TUBA in Poole et al. 2019, section 2.2, after Barber, Agakov 2003.
    """
    relative = scores.double() - log_baseline.double()
    return 1 + pairs(relative) - by_item(exponentials(relative))
