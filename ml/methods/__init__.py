"""Contrastive methods: encoders with what the method trains around them, and its loss. One file a method."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from ml import spec
from ml.encoders import Encoder
from ml.registry import Registry


class Method(nn.Module):
    """All that is trained together; `encoders` are what remains of it for the tasks: one for both views, or one for each."""

    encoders: Sequence[Encoder]

    @abstractmethod
    def loss(self, v1: Float[Tensor, "B ..."], v2: Float[Tensor, "B ..."]) -> Float[Tensor, ""]:
        """The training loss on a batch of view pairs in pixels."""

    @abstractmethod
    def embeddings(
        self, v1: Float[Tensor, "B ..."], v2: Float[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """z1 and z2 on the unit sphere, as the loss compares them; views go through in parts, to spare memory."""

    def similarities(self, v1: Float[Tensor, "B ..."], v2: Float[Tensor, "B ..."]) -> Float[Tensor, "B B"]:
        """The critic without its temperature: cosine similarity of each v1 (rows) with each v2 (columns)."""
        z1, z2 = self.embeddings(v1, v2)
        return z1 @ z2.T


_methods: Registry[Callable[..., Method]] = Registry(__name__)
implements = _methods.implements


def build(method: spec.Method, encoders: Sequence[Encoder], widths: Sequence[int]) -> Method:
    """The method around one encoder or two, whose features have these widths: one width where v1 and v2 are of one shape.

    New weights come from torch's global generator.
    """
    return _methods.find(method)(method, encoders, widths)
