"""The bound of Nguyen, Wainwright and Jordan."""

import math

from jaxtyping import Float, Float64
from torch import Tensor

from ml.mi.strangers import by_item, exponentials, pairs


def contributions(scores: Float[Tensor, "B B"]) -> Float64[Tensor, " B"]:
    """Lower bound in nats as the mean over items: E[f] - E[exp f] / e, the latter over strangers.

    Tight when f is 1 + log p(y|x) / p(y). Its variance grows exponentially with the information. Scores count up to
    `strangers.LARGEST`. Nguyen, Wainwright, Jordan 2010; as I_NWJ in Poole et al. 2019, eq. 8.
    """
    return pairs(scores) - by_item(exponentials(scores)) / math.e
