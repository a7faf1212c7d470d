"""SimCLR. Chen, Kornblith, Norouzi, Hinton 2020."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ml import methods, spec
from ml.encoders import Encoder
from ml.methods import Method


@methods.implements(spec.SimCLR)
class SimCLR(Method):
    """One encoder and one projection for both views, or one for each where they differ in kind; negatives from the batch."""

    def __init__(self, method: spec.SimCLR, encoders: Sequence[Encoder], widths: Sequence[int]) -> None:
        super().__init__()
        self.temperature = method.temperature
        self.encoders: Sequence[Encoder] = nn.ModuleList(encoders)  # type: ignore[assignment]
        self.projections = nn.ModuleList(_projection(width, method.projection) for width in widths)

    def loss(self, v1: Float[Tensor, "B ..."], v2: Float[Tensor, "B ..."]) -> Float[Tensor, ""]:
        """NT-Xent of the projections, made in one pass: batch norm must not tell the two views apart.

        Of views of two kinds the negatives of each are the other kind's alone: within a kind there is nothing to be told apart.
        """
        if len(self.projections) == 1:
            z1, z2 = self._project(torch.cat((v1, v2)), 0).chunk(2)
            return nt_xent(z1, z2, self.temperature)
        return info_nce(self._project(v1, 0), self._project(v2, 1), self.temperature)

    def embeddings(
        self, v1: Float[Tensor, "B ..."], v2: Float[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """Projections on the unit sphere; in evaluation mode, since the parts of a batch have statistics of their own."""
        z1, z2 = (torch.cat([self._project(part, which) for part in view.split(1024)]) for which, view in enumerate((v1, v2)))
        return F.normalize(z1, dim=1), F.normalize(z2, dim=1)

    def _project(self, view: Float[Tensor, "B ..."], which: int) -> Float[Tensor, "B D"]:
        encoder, projection = self.encoders[which % len(self.encoders)], self.projections[which % len(self.projections)]
        projected: Tensor = projection(encoder(view))
        return projected


def nt_xent(z1: Float[Tensor, "B D"], z2: Float[Tensor, "B D"], temperature: float) -> Float[Tensor, ""]:
    """Cross-entropy of finding a view's partner among the 2B - 1 other views of the batch. Chen et al. 2020, eq. 1."""
    z = F.normalize(torch.cat((z1, z2)), dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(len(z), device=z.device).roll(len(z1))
    return F.cross_entropy(logits, partners)


def info_nce(z1: Float[Tensor, "B D"], z2: Float[Tensor, "B D"], temperature: float) -> Float[Tensor, ""]:
    """Cross-entropy of finding a view's partner among the B views of the other kind, mean of both directions.

    van den Oord et al. 2018, eq. 4; both ways as in Tian et al. 2019 (CMC), eq. 3.
    """
    logits = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T / temperature
    positives = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, positives) + F.cross_entropy(logits.T, positives)) / 2


def _projection(width: int, projection: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, projection))
