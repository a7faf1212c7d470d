"""The game in which views are learned: encoders find what the views share, and g leaves as little to be found as it may.

min over g and classifiers, max over encoders, of I_NCE(g(X)_1; g(X)_2:3), with labels beside it the cross-entropy of a classifier
on each view: Tian et al. 2020, section 4.3.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ml import spec
from ml.encoders import Encoder, PixelEncoder
from ml.learned_views.flow import Flow
from ml.methods.simclr import info_nce
from ml.views import Views

PROJECTION = 128  # width in which the encoders compare the views
BAND = 0.25  # nats from where g is aimed at to where it is pushed with all its force
KEPT = 0.9  # share of the reading that stays at each step


class Game(nn.Module):
    """g, the encoders that play against it, and the classifiers for which it keeps what tells the classes apart.

    Each network sees channels standardised by the batch, so that g gains nothing by a mere change of scale.
    """

    reading: Tensor
    """Moving average of I_NCE in nats, each time of the batch that g is about to learn from: training items in fresh crops."""

    def __init__(self, recipe: spec.Learned, flow: Flow, encoder: Callable[[int], Encoder], classes: int, autocast: bool) -> None:
        """`encoder` makes a fresh one for so many channels; `classes` are the dataset's, 0 where it has none."""
        super().__init__()
        self.recipe = recipe
        self.flow = flow

        def network(channels: int, outputs: int) -> nn.Sequential:
            seeing = PixelEncoder(encoder(channels), nn.BatchNorm2d(channels, affine=False), autocast)
            return nn.Sequential(seeing, nn.Linear(seeing.features, outputs))

        plays, sees_labels = recipe.mode != "supervised", recipe.labelled
        self.critics = nn.ModuleList(network(channels, PROJECTION) for channels in ((1, 2) if plays else ()))
        self.classifiers = nn.ModuleList(network(channels, classes) for channels in ((1, 2) if sees_labels else ()))
        if recipe.spectral_norm:
            self.critics.apply(_spectrally_normed)
        self.register_buffer("reading", torch.tensor(math.nan))

    def views(self, crop1: Float[Tensor, "B 3 H W"], crop2: Float[Tensor, "B 3 H W"]) -> Views:
        """The first channel of one crop, and the other two of the other."""
        return self.flow(crop1)[:, :1], self.flow(crop2)[:, 1:]

    def critics_loss(self, v1: Float[Tensor, "B 1 H W"], v2: Float[Tensor, "B 2 H W"]) -> Float[Tensor, ""]:
        """What the encoders minimise: InfoNCE, and a penalty on how steeply they judge true pairs."""
        penalty = self.recipe.gradient_penalty
        if penalty:
            v1, v2 = v1.requires_grad_(), v2.requires_grad_()
        z1, z2 = self._embedded(v1, v2)
        loss = info_nce(z1, z2, self.recipe.temperature)
        if penalty:
            scores = (F.normalize(z1, dim=1) * F.normalize(z2, dim=1)).sum() / self.recipe.temperature
            slopes = torch.autograd.grad(scores, (v1, v2), create_graph=True)
            loss = loss + penalty / 2 * sum(slope.square().sum() for slope in slopes) / len(v1)
        return loss

    def i_nce(self, v1: Float[Tensor, "B 1 H W"], v2: Float[Tensor, "B 2 H W"]) -> Float[Tensor, ""]:
        """log B - InfoNCE in nats: what g minimises."""
        return math.log(len(v1)) - info_nce(*self._embedded(v1, v2), self.recipe.temperature)

    def cross_entropy(
        self, v1: Float[Tensor, "B 1 H W"], v2: Float[Tensor, "B 2 H W"], y: Int64[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """Of a classifier on each view, their sum: what g and the classifiers minimise."""
        of_v1, of_v2 = self.classifiers
        return F.cross_entropy(of_v1(v1), y) + F.cross_entropy(of_v2(v2), y)

    @torch.no_grad()
    def read(self, i_nce: Float[Tensor, ""]) -> None:
        """Take a batch's I_NCE into the reading."""
        self.reading.copy_(torch.where(self.reading.isnan(), i_nce, torch.lerp(i_nce, self.reading, KEPT)))

    def push(self) -> Float[Tensor, ""]:
        """How much I_NCE counts for g, by the reading: 1 where the least is sought.

        About a target it falls in proportion and changes its sign there, so that g goes up from below, by 1 at most either way. A
        floor is a target `BAND` above it: at the floor itself g goes up with all its force.
        """
        recipe = self.recipe
        aim = recipe.floor_nats + BAND if recipe.floor_nats is not None else recipe.target_nats
        return torch.ones_like(self.reading) if aim is None else ((self.reading - aim) / BAND).clamp(-1, 1)

    def _embedded(self, v1: Tensor, v2: Tensor) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        of_v1, of_v2 = self.critics
        return of_v1(v1), of_v2(v2)


def _spectrally_normed(module: nn.Module) -> None:
    """Layers that stretch nothing by more than 1, and no batch norms after them, which would stretch it again."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d | nn.Linear):
            spectral_norm(child)
        elif isinstance(child, nn.BatchNorm2d) and child.affine:  # the one over the channels of a view has no weights, and stays
            setattr(module, name, nn.Identity())
