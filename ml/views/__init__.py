"""View recipes: from a batch of items to the two batches v1 and v2 that are contrasted. One file a family."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Generator, Tensor

from ml import spec
from ml.registry import Registry

Views = tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]
Inputs = tuple[Float[Tensor, "B ..."], ...]
Family = Callable[..., Views]

_families: Registry[Family] = Registry(__name__)
implements = _families.implements
_cleaners: Registry[Callable[..., Inputs]] = Registry(__name__)
cleans = _cleaners.implements


def make(recipe: spec.Views, items: Any, generator: Generator) -> Views:
    """The views v1 and v2 of each item, in the items' own unit: pixels scaled to [0, 1].

    `items` is what the dataset's split hands out: images [B C H W], or clips, photographs, pairs or scenes (`ml.datasets`).
    Every chance is drawn per sample and per view from `generator`, which must live on the items' device.
    """
    return _families.find(recipe)(recipe, items, generator)


def clean(recipe: spec.Views, items: Any) -> Inputs:
    """What the encoders are given of undisturbed items, for the tasks: one batch, or one for each of two encoders."""
    if isinstance(items, Tensor) and not recipe.two_kinds:
        return (items,)
    return _cleaners.find(recipe)(recipe, items)
