"""SimCLR. Chen, Kornblith, Norouzi, Hinton 2020."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ml import methods, spec
from ml.encoders import Encoder
from ml.methods import Method


@methods.implements(spec.SimCLR)
class SimCLR(Method):
    """One encoder and one projection for both views; negatives are the other views of the batch."""

    def __init__(self, method: spec.SimCLR, encoder: Encoder) -> None:
        super().__init__()
        self.temperature = method.temperature
        self.encoder = encoder
        self.projection = nn.Sequential(
            nn.Linear(encoder.features, encoder.features),
            nn.ReLU(inplace=True),
            nn.Linear(encoder.features, method.projection),
        )

    def loss(self, v1: Float[Tensor, "B C H W"], v2: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
        """NT-Xent of the projections, made in one pass: batch norm must not tell the two views apart."""
        projections: Tensor = self.projection(self.encoder(torch.cat((v1, v2))))
        z1, z2 = projections.chunk(2)
        return nt_xent(z1, z2, self.temperature)

    def similarities(self, v1: Float[Tensor, "B C H W"], v2: Float[Tensor, "B C H W"]) -> Float[Tensor, "B B"]:
        """Cosine similarities of the projections, in evaluation mode: the views go through in parts, to spare memory."""
        z1, z2 = (torch.cat([self.projection(self.encoder(part)) for part in view.split(1024)]) for view in (v1, v2))
        return F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T


def nt_xent(z1: Float[Tensor, "B D"], z2: Float[Tensor, "B D"], temperature: float) -> Float[Tensor, ""]:
    """Cross-entropy of finding a view's partner among the 2B - 1 other views of the batch. Chen et al. 2020, eq. 1."""
    z = F.normalize(torch.cat((z1, z2)), dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(len(z), device=z.device).roll(len(z1))
    return F.cross_entropy(logits, partners)
