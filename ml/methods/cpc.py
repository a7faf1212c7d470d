"""Contrastive predictive coding on images. van den Oord, Li, Vinyals 2018, section 3.2; Henaff et al. 2020."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from ml import methods, spec
from ml.distributed import gather, share
from ml.methods import Projecting, Setting, in_parts
from ml.views import Inputs, patch_grid


@methods.implements(spec.CPC)
class CPC(Projecting):
    """A context of the rows read so far foretells the patches below: a bilinear form for each number of rows in between."""

    def __init__(self, method: spec.CPC, setting: Setting) -> None:
        super().__init__(method, setting)
        self.temperature = method.temperature
        width = method.projection
        self.along = nn.Conv1d(width, width, kernel_size=3, padding=1)
        self.down = nn.GRU(width, width)
        self.predictions = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(method.steps))

    def draw(self, recipe: spec.Views, items: Any, chances: Generator) -> Inputs:
        """All patches [B rows columns C size size]."""
        assert isinstance(recipe, spec.PatchGrid), "no other family is let in"
        return (patch_grid.grid(recipe, patch_grid.augmented(recipe, items, chances)),)

    def loss(self, drawn: Inputs, items: Int64[Tensor, " B"], chances: Generator) -> Float[Tensor, ""]:
        """InfoNCE of finding each patch among those of its row in all images, the mean over the steps."""
        patches = share(drawn[0])
        z = self.project(patches.flatten(0, 2), 0).unflatten(0, patches.shape[:3])
        context = self._context(z)
        z, context = gather(z), gather(context)
        losses = [
            prediction_loss(unit(prediction(context[:, :-step])), z[:, step:], self.temperature)
            for step, prediction in enumerate(self.predictions, start=1)
        ]
        return torch.stack(losses).mean()

    def project(self, view: Float[Tensor, "B C H W"], which: int) -> Float[Tensor, "B D"]:
        """Of a patch, layer-normed; its norm is 1."""
        return unit(self.projections[0](self.encoders[0](view)))

    def embeddings(
        self, v1: Float[Tensor, "B C H W"], v2: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """What v1 alone foretells, the mean over the steps since nobody says how far below v2 lies; and v2 itself."""
        return in_parts(self._foretold, v1), in_parts(lambda view: self.project(view, 1), v2)

    def _foretold(self, patches: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        context = self._context(self.project(patches, 0)[:, None, None])[:, 0, 0]
        return unit(torch.stack([unit(prediction(context)) for prediction in self.predictions]).mean(dim=0))

    def _context(self, z: Float[Tensor, "B rows columns D"]) -> Float[Tensor, "B rows columns D"]:
        """Of each patch: what it, its neighbours and the rows above say. Rows below are not looked at."""
        B, rows, columns, _ = z.shape
        beside = self.along(z.flatten(0, 1).transpose(1, 2)).transpose(1, 2).unflatten(0, (B, rows))
        read, _ = self.down(beside.transpose(0, 1).flatten(1, 2))
        context: Tensor = read.unflatten(1, (B, columns)).transpose(0, 1)
        return F.layer_norm(context, context.shape[-1:])


def unit(z: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """Layer norm without weights, scaled to length 1."""
    return F.normalize(F.layer_norm(z, z.shape[-1:]), dim=-1)


def prediction_loss(
    foretold: Float[Tensor, "B rows columns D"], patches: Float[Tensor, "B rows columns D"], temperature: float
) -> Float[Tensor, ""]:
    """InfoNCE from each foretold patch to the B columns patches of its row: other patches, and other images'. Eq. 4 there."""
    of_row, candidates = (part.transpose(0, 1).flatten(1, 2) for part in (foretold, patches))
    logits = of_row @ candidates.transpose(1, 2) / temperature
    rows, found = logits.shape[:2]
    return F.cross_entropy(logits.flatten(0, 1), torch.arange(found, device=logits.device).repeat(rows))
