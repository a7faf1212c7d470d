"""Crops of a fixed size: the less of the image each view sees, the less the two share."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ml import spec, views
from ml.views import Views, drawn
from ml.views.resample import resized_boxes


@views.implements(spec.Crop)
def crop(recipe: spec.Crop, images: Float[Tensor, "B C H W"], generator: Generator) -> Views:
    """A box with `recipe.area` of the image's area and the image's proportions, at a uniform place between pixels too."""
    return _cropped(images, recipe.area, generator), _cropped(images, recipe.area, generator)


def _cropped(images: Float[Tensor, "B C H W"], area: float, generator: Generator) -> Float[Tensor, "B C H W"]:
    B, _, H, W = images.shape
    share = math.sqrt(area)
    down, across = torch.rand(2, B, generator=generator, device=images.device) * (1 - share)
    top, left = down * H, across * W
    size = torch.full((B,), share, device=images.device)
    drawn.note("left, top", left, top, unit="px")
    return resized_boxes(images, top, left, size * H, size * W)
