"""Contrastive methods: an encoder with what the method trains around it, and its loss. One file a method."""

from abc import abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from ml import spec
from ml.encoders import Encoder
from ml.registry import Registry


class Method(nn.Module):
    """All that is trained together; `encoder` is what remains of it for the tasks."""

    encoder: Encoder

    @abstractmethod
    def loss(self, v1: Float[Tensor, "B C H W"], v2: Float[Tensor, "B D I J"]) -> Float[Tensor, ""]:
        """The training loss on a batch of view pairs in pixels."""

    @abstractmethod
    def similarities(self, v1: Float[Tensor, "B C H W"], v2: Float[Tensor, "B D I J"]) -> Float[Tensor, "B B"]:
        """The critic without its temperature: cosine similarity of each v1 (rows) with each v2 (columns)."""


_methods: Registry[Callable[..., Method]] = Registry(__name__)
implements = _methods.implements


def build(method: spec.Method, encoder: Encoder) -> Method:
    """The method around an encoder; new weights come from torch's global generator."""
    return _methods.find(method)(method, encoder)
