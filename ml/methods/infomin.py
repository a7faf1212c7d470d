"""InfoMin's own setting: MoCo with a jigsaw branch. Tian, Sun, Poole, Krishnan, Schmid, Isola 2020, section 5."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from ml import methods, spec
from ml.distributed import gather, share
from ml.methods import Setting, jigsaw
from ml.methods.moco import MoCo
from ml.views import Inputs


@methods.implements(spec.InfoMin)
class InfoMin(MoCo):
    """v1, and the pieces of v1, both look for the key of v2."""

    def __init__(self, method: spec.InfoMin, setting: Setting) -> None:
        super().__init__(method, setting)
        self.jigsaw = jigsaw.JigsawHead(setting.widths[0], method)
        self.jigsaw_weight = method.jigsaw_weight

    def draw(self, recipe: spec.Views, items: Any, chances: Generator) -> Inputs:
        """v1, v2 and the pieces of v1."""
        v1, v2 = self.views(recipe, items, chances)
        return v1, v2, jigsaw.cut(v1, chances)

    def loss(self, drawn: Inputs, items: Int64[Tensor, " B"], chances: Generator) -> Float[Tensor, ""]:
        """A weighted mean of the image's loss and of the jigsaw's, with one key and one queue."""
        image, view, pieces = drawn
        (network,), (queue,) = self.key_networks, self.queues
        self._seen = []
        keys = self._keys(view, items, network, queue, chances)
        queries = gather(self.project(share(image), 0)), gather(self.jigsaw(self.encoders[0], share(pieces)))
        of_image, of_jigsaw = (self._find(z, keys, items, queue) for z in queries)
        return torch.lerp(of_image, of_jigsaw, self.jigsaw_weight)
