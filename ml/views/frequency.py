"""Low frequencies against the rest."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ml import spec, views
from ml.views import Views


@views.implements(spec.Frequency)
def frequency(recipe: spec.Frequency, images: Float[Tensor, "B C H W"], generator: Generator) -> Views:
    """The blurred image against what the blur took away, or of another crop where `recipe.before` makes two."""
    if recipe.before is None:
        return bands(recipe, images)
    crop1, crop2 = views.make(recipe.before, images, generator)
    return bands(recipe, crop1)[0], bands(recipe, crop2)[1]


@views.cleans(spec.Frequency)
def clean_bands(recipe: spec.Frequency, images: Float[Tensor, "B C H W"]) -> Views:
    """The bands of the image itself."""
    return bands(recipe, images)


def bands(recipe: spec.Frequency, images: Float[Tensor, "B C H W"]) -> Views:
    """The two add up to the image."""
    low = blurred(images, recipe.sigma)
    return low, images - low


def blurred(images: Float[Tensor, "B C H W"], sigma: float) -> Float[Tensor, "B C H W"]:
    """Gaussian blur, sigma in pixels; kernels cut at 4 sigma or where the image ends, edges reflected."""
    H, W = images.shape[-2:]
    rows, columns = _blur_matrix(sigma, H, images.device), _blur_matrix(sigma, W, images.device)
    return rows @ (images @ columns.T)


@lru_cache(maxsize=16)
def _blur_matrix(sigma: float, size: int, device: torch.device) -> Float[Tensor, "size size"]:
    """Row i holds the weights of the pixels in blurred pixel i."""
    radius = min(math.ceil(4 * sigma), size - 1)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma).double() ** 2)
    neighbours = torch.arange(size)[:, None] + offsets
    reflected = (size - 1) - ((size - 1) - neighbours.abs()).abs()
    weights = torch.zeros(size, size, dtype=torch.float64)
    weights.scatter_add_(1, reflected, (kernel / kernel.sum()).expand(size, -1))
    return weights.float().to(device)
