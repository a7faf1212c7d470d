"""Pretext-invariant representations. Misra, van der Maaten 2020."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from ml import methods, spec
from ml.distributed import gather, share
from ml.methods import Projecting, Setting, in_parts, jigsaw
from ml.methods.bank import Bank, softmax_nce
from ml.views import Inputs, Views


@methods.implements(spec.PIRL)
class PIRL(Projecting):
    """An image and a jigsaw of another augmentation of it, both against the image's past feature in a memory bank.

    The two views that share information here are the image and the jigsaw.
    """

    def __init__(self, method: spec.PIRL, setting: Setting) -> None:
        super().__init__(method, setting)
        self.method = method
        self.jigsaw = jigsaw.JigsawHead(setting.widths[0], method)
        self.bank = Bank(setting.items, method.projection, method.bank_momentum)
        self._seen: tuple[Tensor, Tensor] | None = None

    def views(self, recipe: spec.Views, items: Any, chances: Generator) -> Views:
        """v1, and the pieces of v2."""
        v1, v2 = super().views(recipe, items, chances)
        return v1, jigsaw.cut(v2, chances)

    def loss(self, drawn: Inputs, items: Int64[Tensor, " B"], chances: Generator) -> Float[Tensor, ""]:
        """A weighted mean of the image's and of the jigsaw's. Eq. 6 there."""
        image, pieces = (share(view) for view in drawn)
        z_image, z_jigsaw = gather(self.project(image, 0)), gather(self._of_pieces(pieces))
        self._seen = items, z_image
        assert self.method.negatives is not None, "a resolved spec has it"
        candidates = self.bank.candidates(items, self.method.negatives, chances)
        of_image, of_jigsaw = (
            softmax_nce(self.bank.scores(z, candidates) / self.method.temperature) for z in (z_image, z_jigsaw)
        )
        return torch.lerp(of_image, of_jigsaw, self.method.jigsaw_weight)

    def update(self) -> None:
        """The bank takes in the images of this step, not their jigsaws."""
        if self._seen is not None:
            self.bank.remember(*self._seen)
        self._seen = None

    def embeddings(
        self, v1: Float[Tensor, "B C H W"], v2: Float[Tensor, "B 9 C s s"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """Of the image, and of the pieces."""
        return in_parts(lambda view: self.project(view, 0), v1), in_parts(self._of_pieces, v2)

    def _of_pieces(self, pieces: Float[Tensor, "B 9 C s s"]) -> Float[Tensor, "B D"]:
        projected: Tensor = self.jigsaw(self.encoders[0], pieces)
        return projected
