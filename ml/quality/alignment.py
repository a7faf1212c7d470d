"""Alignment: how near to each other the views of an item are. Wang and Isola 2020."""

from jaxtyping import Float, Float64
from torch import Tensor


def alignment(z1: Float[Tensor, "N D"], z2: Float[Tensor, "N D"]) -> Float64[Tensor, ""]:
    """E|z - z+|^2 of embeddings on the unit sphere, with the paper's alpha of 2: from 0 to 4, and less is better."""
    return (z1.double() - z2.double()).square().sum(dim=1).mean()
