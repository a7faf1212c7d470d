"""SimCLR. Chen, Kornblith, Norouzi, Hinton 2020."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from ml import methods, spec
from ml.distributed import gather, share
from ml.methods import Projecting, Setting
from ml.views import Inputs


@methods.implements(spec.SimCLR)
class SimCLR(Projecting):
    """One encoder and one projection for both views, or one for each where they differ in kind; negatives from the batch."""

    def __init__(self, method: spec.SimCLR, setting: Setting) -> None:
        super().__init__(method, setting)
        self.temperature = method.temperature

    def loss(self, drawn: Inputs, items: Int64[Tensor, " B"], chances: Generator) -> Float[Tensor, ""]:
        """NT-Xent of the projections, made in one pass: batch norm must not tell the two views apart.

        Of views of two kinds the negatives of each are the other kind's alone: within a kind there is nothing to be told apart.
        """
        v1, v2 = (share(view) for view in drawn)
        if self.two_kinds:
            return info_nce(gather(self.project(v1, 0)), gather(self.project(v2, 1)), self.temperature)
        z1, z2 = (gather(z) for z in self.project(torch.cat((v1, v2)), 0).chunk(2))
        return nt_xent(z1, z2, self.temperature)


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
