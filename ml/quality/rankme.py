"""RankMe: how many dimensions the embeddings use. Garrido, Balestriero, Najman, LeCun 2023."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def rankme(z: Float[Tensor, "N D"]) -> Float64[Tensor, ""]:
    """Effective rank of embeddings, which are not centred: 1 where all are alike, at most min(N, D), and more is better.

    Equation 1, without the small constant that it adds for numerical stability: embeddings that are isotropic in k dimensions
    have rank k exactly.
    """
    return effective_rank(torch.linalg.svdvals(z.double()))


def effective_rank(spectrum: Float64[Tensor, " D"]) -> Float64[Tensor, ""]:
    """Exponential of the entropy of a spectrum, normalised to sum to 1; 0 where there is nothing. Roy and Vetterli 2007."""
    total = spectrum.sum()
    if total == 0:
        return total
    entropy: Tensor = torch.special.entr(spectrum / total).sum()
    return entropy.exp()
