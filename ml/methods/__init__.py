"""Contrastive methods: encoders with what the method trains around them, and its loss. One file a method."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from ml import spec, views
from ml.encoders import Encoder
from ml.registry import Registry
from ml.views import Inputs, Views

EMBEDDED_AT_A_TIME = 1024  # views, to spare memory
ENCODED_AT_A_TIME = 512  # undisturbed items


@dataclass(frozen=True, eq=False)
class Setting:
    """What a method is built around."""

    encoders: Sequence[Encoder]
    """One for both views, or one for each where they are of two kinds."""
    widths: Sequence[int]
    """Of the features of v1 and of v2; one width where one projection serves both, which are of one shape then."""
    items: int
    """Training items, each of which has its place in a memory bank."""
    recipe: spec.Views
    targets: Mapping[str, Int64[Tensor, " N"]] = field(default_factory=dict)
    """Classes of the training items, -1 where unknown; places stay away."""


class Method(nn.Module):
    """All that is trained together; `encoders` are what remains of it for the tasks: one for both views, or one for each.

    What it remembers from step to step are buffers, so that a checkpoint holds them.
    """

    encoders: Sequence[Encoder]
    synced = True
    """Whether several processes that train together have batch norm of the whole batch, rather than each its own."""

    def views(self, recipe: spec.Views, items: Any, chances: Generator) -> Views:
        """The two views of each item that this method tells apart, and of which the shared information is measured."""
        return views.make(recipe, items, chances)

    def draw(self, recipe: spec.Views, items: Any, chances: Generator) -> Inputs:
        """What a step of training is shown of a batch: its views, unless a method needs more of them."""
        return self.views(recipe, items, chances)

    @abstractmethod
    def loss(self, drawn: Inputs, items: Int64[Tensor, " B"], chances: Generator) -> Float[Tensor, ""]:
        """The training loss of a batch as it was drawn, of these training items; `chances` chooses what else is to be chosen."""

    def forward(self, drawn: Inputs, items: Int64[Tensor, " B"], chances: Generator) -> Float[Tensor, ""]:
        """The loss: so that what wraps modules finds it."""
        return self.loss(drawn, items, chances)

    def update(self) -> None:
        """The optimiser has made its step: move what follows the weights, and remember what the next steps look back at."""

    @abstractmethod
    def embeddings(
        self, v1: Float[Tensor, "B ..."], v2: Float[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """z1 and z2 on the unit sphere, as the loss compares them; views go through in parts, to spare memory."""

    @torch.no_grad()
    def features(self, recipe: spec.Views, split: Any, items: Int64[Tensor, " N"]) -> Float[Tensor, "N F"]:
        """Of these items of a split as they are undisturbed, side by side where there are two encoders: what tasks read."""
        parts = []
        for some in items.split(ENCODED_AT_A_TIME):
            inputs = views.clean(recipe, split.take(some))
            parts.append(torch.cat([encoder(view) for encoder, view in zip(self.encoders, inputs, strict=True)], dim=1))
        return torch.cat(parts)

    def similarities(self, v1: Float[Tensor, "B ..."], v2: Float[Tensor, "B ..."]) -> Float[Tensor, "B B"]:
        """The critic without its temperature: cosine similarity of each v1 (rows) with each v2 (columns)."""
        z1, z2 = self.embeddings(v1, v2)
        return z1 @ z2.T


class Projecting(Method):
    """A method that compares projections of the features on the unit sphere.

    `networks` are encoder and projection: one for both views, or one for each where they differ in kind or shape.
    """

    def __init__(self, method: Any, setting: Setting) -> None:
        super().__init__()
        self.encoders: Sequence[Encoder] = nn.ModuleList(setting.encoders)  # type: ignore[assignment]
        self.projections = nn.ModuleList(projection(width, method) for width in setting.widths)

    @property
    def two_kinds(self) -> bool:
        """Whether v1 and v2 have a network each."""
        return len(self.projections) == 2

    def project(self, view: Float[Tensor, "B ..."], which: int) -> Float[Tensor, "B D"]:
        """On the unit sphere, by the network of v1 (0) or of v2 (1)."""
        encoder, head = self.encoders[which % len(self.encoders)], self.projections[which % len(self.projections)]
        return F.normalize(head(encoder(view)), dim=1)

    def embeddings(
        self, v1: Float[Tensor, "B ..."], v2: Float[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """Projections on the unit sphere; in evaluation mode, since the parts of a batch have statistics of their own."""
        return in_parts(lambda view: self.project(view, 0), v1), in_parts(lambda view: self.project(view, 1), v2)


def projection(width: int, method: spec.Projected) -> nn.Module:
    """From features to the space in which views are compared: one linear layer, or two with a ReLU between them."""
    if method.head == "linear":
        return nn.Linear(width, method.projection)
    hidden = method.hidden or width
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, method.projection))


def in_parts(network: Callable[[Tensor], Tensor], view: Float[Tensor, "B ..."]) -> Float[Tensor, "B D"]:
    """What a network makes of a batch, a part at a time."""
    return torch.cat([network(part) for part in view.split(EMBEDDED_AT_A_TIME)])


_methods: Registry[Callable[[Any, Setting], Method]] = Registry(__name__)
implements = _methods.implements


def build(method: spec.Method, setting: Setting) -> Method:
    """The method as it begins. New weights come from torch's global generator."""
    return _methods.find(method)(method, setting)
