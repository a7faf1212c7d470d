"""The Jensen-Shannon bound: to train a critic on, not to be read."""

import math

import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from ml.mi.strangers import by_item, without_pairs


def contributions(scores: Float[Tensor, "B B"]) -> Float64[Tensor, " B"]:
    """Objective as the mean over items: E[-softplus(-f)] - E[softplus(f)], the latter over strangers.

    Highest at f = log p(y|x) / p(y), where it is twice the Jensen-Shannon divergence less log 4: no mutual information, so read
    the critic 1 + f as NWJ. Training is stable, because no exponential is left in it. Nowozin et al. 2016; as a training
    objective Hjelm et al. 2019, eq. 4.
    """
    return -F.softplus(-scores.diagonal().double()) - by_item(F.softplus(without_pairs(scores, -math.inf)))
