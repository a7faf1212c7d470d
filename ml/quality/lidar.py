"""LiDAR: in how many dimensions embeddings tell items apart. Thilak et al. 2024."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ml.quality.rankme import effective_rank

LEAST = 1e-6  # of the scatter within: where items are no further apart they differ by rounding


def lidar(z: Float[Tensor, "n q D"], delta: float = 1e-4) -> Float64[Tensor, ""]:
    """Linear discriminant analysis rank of embeddings of `q` views of each of `n` items, which stand for classes.

    Effective rank of Sigma_w^-1/2 Sigma_b Sigma_w^-1/2, with the scatter of the items' means in Sigma_b, and of the views about
    them plus delta I in Sigma_w (equations 1 to 4; the paper gives no delta). From 0, where no item can be told from another, to
    min(n - 1, D); more is better. The paper takes q = 10 to 100, and n > D.
    """
    z = z.double()
    means = z.mean(dim=1)
    within = (z - means[:, None]).flatten(0, 1)
    between = means - means.mean(dim=0)
    sigma_w = within.T @ within / len(within) + delta * torch.eye(z.shape[2], dtype=z.dtype, device=z.device)
    # whitened by a Cholesky factor, which is another root of the same matrix and leaves the same eigenvalues
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(sigma_w), between.T, upper=False)
    ratios = torch.linalg.svdvals(whitened).square() / len(between)
    return effective_rank(torch.where(ratios > LEAST, ratios, 0.0))
