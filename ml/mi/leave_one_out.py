"""The leave-one-out upper bound."""

import math

from jaxtyping import Float, Float64
from torch import Tensor

from ml.mi.strangers import as_rows, without_pairs


def contributions(log_conditionals: Float[Tensor, "B B"]) -> Float64[Tensor, " B"]:
    """Upper bound in nats as the mean over items: log p(y_i|x_i) less the log of the mean of p(y_i|x_j) over the strangers j.

    `log_conditionals[i, j]` is log p(y_j|x_i). A bound where that is the true density; tight as B grows. With a learned density
    it is neither: as B grows it reads below the truth by what the density is wrong. Poole et al. 2019, eq. 13.
    """
    others = without_pairs(log_conditionals, -math.inf)
    mixtures = others.logsumexp(dim=0) - math.log(len(others) - 1)
    return log_conditionals.diagonal().double() - mixtures - as_rows(others.softmax(dim=0))
