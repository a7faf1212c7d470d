"""Additive Gaussian noise."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ml import spec, views
from ml.views import Views


@views.implements(spec.Noise)
def noise(recipe: spec.Noise, images: Float[Tensor, "B C H W"], generator: Generator) -> Views:
    """v_i = x + sigma n_i, not clipped: what the views share is x alone, and less of it the larger sigma is."""
    return _noisy(images, recipe.sigma, generator), _noisy(images, recipe.sigma, generator)


def _noisy(images: Float[Tensor, "B C H W"], sigma: float, generator: Generator) -> Float[Tensor, "B C H W"]:
    chances = torch.randn(images.shape, generator=generator, device=images.device)
    return chances.mul_(sigma).add_(images)
