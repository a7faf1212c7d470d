"""alpha-ReQ: how fast the spectrum of a representation decays. Agrawal, Mondal, Ghosh, Richards 2022."""

import torch
from jaxtyping import Float
from torch import Tensor

FIRST, LAST = 4, 100  # ranks, as the authors' code has them; the paper names none
LEAST_RANKS = 5
LEAST = 1e-10  # of the mean square length: features that vary no more do so by rounding


def alpha_req(features: Float[Tensor, "N F"]) -> float | None:
    """The exponent alpha where eigenvalues of the features' covariance fall with their rank as rank^-alpha.

    By least squares of log eigenvalue on log rank from the 4th to the 100th, weighted by 1 / rank so that each octave counts the
    same; to the last that is above 0 where there are fewer, and None where less than five are left. Near 1 is best, as the paper
    finds: below it dimensions are filled with noise, above it few dimensions carry all.
    """
    features = features.double()
    centred = features - features.mean(dim=0)
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred / len(centred)).flip(0)
    ranked = eigenvalues[eigenvalues > LEAST * features.square().sum(dim=1).mean()][FIRST - 1 : LAST]
    if len(ranked) < LEAST_RANKS:
        return None
    rank = torch.arange(FIRST, FIRST + len(ranked), dtype=ranked.dtype, device=ranked.device)
    at, weights = rank.log(), 1 / rank
    at = at - (weights * at).sum() / weights.sum()
    slope: Tensor = (weights * at * ranked.log()).sum() / (weights * at.square()).sum()
    return -slope.item()
