"""Two patches of a photograph at a distance."""

import torch
from jaxtyping import Int64
from torch import Generator, Tensor

from ml import spec, views
from ml.datasets.photographs import Photographs
from ml.views import Views, drawn


@views.implements(spec.Patches)
def patches(recipe: spec.Patches, photographs: Photographs, generator: Generator) -> Views:
    """v1 with its corner at (left, top), v2 `recipe.distance` pixels to the right of it and below.

    The pair's place is uniform over all at which both lie inside the photograph: up to its edges, and no farther.
    """
    reach = recipe.size + recipe.distance
    top = _up_to(photographs.heights - reach, generator)
    left = _up_to(photographs.widths - reach, generator)
    v1 = _noted(photographs, top, left, recipe.size)
    v2 = _noted(photographs, top + recipe.distance, left + recipe.distance, recipe.size)
    return v1, v2


def _noted(photographs: Photographs, top: Int64[Tensor, " B"], left: Int64[Tensor, " B"], size: int) -> Tensor:
    drawn.note("left, top", left, top, unit="px")
    return photographs.patches(top, left, size)


def _up_to(most: Int64[Tensor, " B"], generator: Generator) -> Int64[Tensor, " B"]:
    """Uniform whole numbers from 0 to `most`, which is included."""
    return (torch.rand(len(most), generator=generator, device=most.device) * (most + 1)).long()
