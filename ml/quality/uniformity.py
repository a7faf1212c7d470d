"""Uniformity: how evenly embeddings are spread over the sphere. Wang and Isola 2020."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def uniformity(z: Float[Tensor, "R N D"]) -> Float64[Tensor, ""]:
    """log E exp(-2 |z - z'|^2) over pairs of different items, of `R` rounds of embeddings of N items on the unit sphere.

    With the paper's t of 2: 0 where all coincide (and of a single item), about -4 where they are spread evenly over a sphere of
    many dimensions; less is better.
    """
    rounds, items = z.shape[:2]
    if items == 1:
        return z.new_zeros((), dtype=torch.float64)
    potentials = torch.cat([-2 * torch.pdist(embeddings).square() for embeddings in z.double()])
    return potentials.logsumexp(dim=0) - math.log(rounds * items * (items - 1) / 2)
