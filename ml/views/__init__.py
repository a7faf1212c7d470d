"""View recipes: from a batch of items to the two batches v1 and v2 that are contrasted. One file a family."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Generator, Tensor

from ml import spec
from ml.registry import Registry

Views = tuple[Float[Tensor, "B _ _ _"], Float[Tensor, "B _ _ _"]]
Family = Callable[..., Views]

_families: Registry[Family] = Registry(__name__)
implements = _families.implements


def make(recipe: spec.Views, images: Float[Tensor, "B C H W"], generator: Generator) -> Views:
    """The views v1 and v2 of each image, in the images' own unit: pixels scaled to [0, 1].

    Every chance is drawn per sample and per view from `generator`, which must live on the images' device.
    """
    return _families.find(recipe)(recipe, images, generator)
