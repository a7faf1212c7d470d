"""Augmentations as batched tensor code: each sample has its own chances and strengths. Meanings are torchvision's."""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from ml import spec, views
from ml.views import Views, adjust, drawn
from ml.views.affine import affine, rotation
from ml.views.randaugment import randaugment_
from ml.views.resample import apply_separable, resized_boxes


@views.implements(spec.Augment)
def augment(recipe: spec.Augment, images: Float[Tensor, "B C H W"], generator: Generator) -> Views:
    """Crop and flip, rotation, jitter, blur, RandAugment, grayscale, solarizing, cutout: in this order in every recipe.

    The published recipes have grayscale before the blur or after it, which is the same. The jitter is brightness, contrast,
    saturation, hue, always in this order (torchvision's `ColorJitter` shuffles the four).
    """
    with drawn.of_view(1):
        v1 = augmented(recipe, images, generator)
    with drawn.of_view(2):
        return v1, augmented(recipe.of_v2, images, generator)


def augmented(recipe: spec.Operations, images: Float[Tensor, "B C H W"], generator: Generator) -> Float[Tensor, "B C H W"]:
    """One augmented view of each image."""
    images = _cropped(recipe, images, generator)  # a copy, and the rest happens in place
    randaugment_p = recipe.randaugment_p if recipe.randaugment_n > 0 else 0
    for chance, operation in (
        (recipe.rotate_p, _rotate_),
        (recipe.jitter_p, _jitter_),
        (recipe.blur_p, _blur_),
        (randaugment_p, _randaugment_),
        (recipe.grayscale_p, _grayscale_),
        (recipe.solarize_p, _solarize_),
        (recipe.cutout_p, _cut_out_),
    ):
        if chance > 0:
            operation(recipe, images, _chance(chance, len(images), generator), generator)
    return images


def random_boxes(
    scale_min: float, ratio: tuple[float, float], B: int, H: int, W: int, generator: Generator
) -> Float[Tensor, "4 B"]:
    """Top, left, height and width of random resized crops in whole pixels, drawn as torchvision's `RandomResizedCrop` does.

    Of ten draws of an area uniform in (scale_min, 1) and a log-uniform ratio the first that fits; else the central crop that
    comes nearest.
    """
    area, log_ratio = torch.rand(2, B, 10, generator=generator, device=generator.device)
    side = ((scale_min + (1 - scale_min) * area) * H * W).sqrt()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    root = torch.exp((low + (high - low) * log_ratio) / 2)
    tried = torch.stack((side / root, side * root)).round()
    most = tried.new_tensor((H, W))[:, None]
    fits = ((tried >= 1) & (tried <= most[:, :, None])).all(dim=0)
    first = fits.int().argmax(dim=1).expand(2, B)[:, :, None]
    nearest = min(max(W / H, ratio[0]), ratio[1])
    central = tried.new_tensor((round(min(H, W / nearest)), round(min(W, H * nearest))))[:, None]
    found = fits.any(dim=1)
    size = torch.where(found, tried.gather(2, first)[:, :, 0], central)
    place = torch.rand(2, B, generator=generator, device=generator.device)
    corner = torch.where(found, place * (most - size + 1), (most - size) / 2).floor()
    return torch.cat((corner, size))


def gaussian_blur(images: Float[Tensor, "B C H W"], sigma: Float[Tensor, " B"], radius: int) -> Float[Tensor, "B C H W"]:
    """Blur each image with its own sigma in pixels, kernels cut at `radius` pixels, edges reflected."""
    H, W = images.shape[-2:]
    rows = _blur_matrices(sigma, radius, H)
    return apply_separable(images, rows, rows if H == W else _blur_matrices(sigma, radius, W))


def cut_out(
    images: Float[Tensor, "B C H W"], row: Float[Tensor, " B"], column: Float[Tensor, " B"], share: float
) -> Float[Tensor, "B C H W"]:
    """Blacken a square about this pixel, its sides a `share` of the image's and what sticks out of it left out.

    DeVries and Taylor 2017.
    """
    H, W = images.shape[-2:]
    rows, columns = _covered(row, share, H), _covered(column, share, W)
    return images * (1 - rows[:, None, :, None] * columns[:, None, None, :])


def _cropped(recipe: spec.Operations, images: Float[Tensor, "B C H W"], generator: Generator) -> Float[Tensor, "B C H W"]:
    B, _, H, W = images.shape
    crop, flip = _chance(recipe.crop_p, B, generator), _chance(recipe.flip_p, B, generator)
    box = random_boxes(recipe.crop_scale_min, recipe.crop_ratio, B, H, W, generator)
    top, left, height, width = torch.where(crop, box, box.new_tensor((0, 0, H, W))[:, None])
    drawn.note("left, top, width, height", left, top, width, height, unit="px", where=crop)
    drawn.note("flip", flip, where=flip, names=("", "left to right"))
    return resized_boxes(images, top, left, height, width, flip)


def _rotate_(recipe: spec.Operations, images: Tensor, where: Bool[Tensor, " B"], generator: Generator) -> None:
    degrees = recipe.rotate_degrees * (2 * _uniform(len(images), generator) - 1)
    drawn.note("rotation", degrees, unit="°", where=where)
    _change_(images, where, lambda chosen, of: affine(chosen, rotation(degrees[of])))


def _jitter_(recipe: spec.Operations, images: Tensor, where: Bool[Tensor, " B"], generator: Generator) -> None:
    brightness, contrast, saturation, hue = (recipe.jitter * strength for strength in recipe.jitter_strengths)
    factors = [("brightness", brightness, adjust.brightness_), ("contrast", contrast, adjust.contrast_)]
    if is_rgb := images.shape[1] == 3:
        factors.append(("saturation", saturation, adjust.saturation_))
    for name, most, adjust_ in factors:
        if most > 0:
            low = max(0.0, 1 - most)
            factor = low + (1 + most - low) * _uniform(len(images), generator)
            drawn.note(name, factor, where=where)
            adjust_(images, torch.where(where, factor, 1.0))
    if is_rgb and hue > 0:
        turns = min(hue, 0.5) * (2 * _uniform(len(images), generator) - 1)
        drawn.note("hue", turns, where=where)
        adjust.hue_(images, torch.where(where, turns, 0.0))


def _blur_(recipe: spec.Operations, images: Tensor, where: Bool[Tensor, " B"], generator: Generator) -> None:
    low, high = recipe.blur_sigma
    sigma = low + (high - low) * _uniform(len(images), generator)
    drawn.note("blur", sigma, unit="px", where=where)
    radius = min(math.ceil(3 * high), images.shape[-2] - 1, images.shape[-1] - 1)
    _change_(images, where, lambda chosen, of: gaussian_blur(chosen, sigma[of], radius))


def _randaugment_(recipe: spec.Operations, images: Tensor, where: Bool[Tensor, " B"], generator: Generator) -> None:
    randaugment_(images, recipe.randaugment_n, recipe.randaugment_m, where, generator)


def _grayscale_(recipe: spec.Operations, images: Tensor, where: Bool[Tensor, " B"], generator: Generator) -> None:
    if images.shape[1] == 3:
        drawn.note("colours", where, where=where, names=("", "grey"))
        _change_(images, where, lambda chosen, of: adjust.to_grayscale(chosen).expand_as(chosen))


def _solarize_(recipe: spec.Operations, images: Tensor, where: Bool[Tensor, " B"], generator: Generator) -> None:
    threshold = torch.full_like(where, recipe.solarize_threshold, dtype=images.dtype)
    drawn.note("solarized from", threshold, where=where)
    _change_(images, where, lambda chosen, of: adjust.solarize_(chosen, threshold[of]))


def _cut_out_(recipe: spec.Operations, images: Tensor, where: Bool[Tensor, " B"], generator: Generator) -> None:
    B, _, H, W = images.shape
    row, column = (_uniform(B, generator) * H).floor(), (_uniform(B, generator) * W).floor()
    drawn.note("cutout about x, y", column, row, unit="px", where=where)
    _change_(images, where, lambda chosen, of: cut_out(chosen, row[of], column[of], recipe.cutout_share))


def _change_(images: Tensor, where: Bool[Tensor, " B"], change: Callable[[Tensor, Tensor], Tensor]) -> None:
    of = where.nonzero()[:, 0]
    images.index_copy_(0, of, change(images.index_select(0, of), of))


def _blur_matrices(sigma: Float[Tensor, " B"], radius: int, size: int) -> Float[Tensor, "B size size"]:
    offsets = torch.arange(radius + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = kernel / (2 * kernel.sum(dim=1, keepdim=True) - kernel[:, :1])
    return (kernel @ _reflected_offsets(radius, size, sigma.device)).view(-1, size, size)


@lru_cache(maxsize=16)
def _reflected_offsets(radius: int, size: int, device: torch.device) -> Float[Tensor, "offsets pixels"]:
    """For each distance and output pixel, the input pixels that far away, mirrored at the edges."""
    pixels = torch.arange(size)
    taps = torch.zeros(radius + 1, size, size)
    for offset in range(radius + 1):
        for neighbours in {pixels + offset, pixels - offset} if offset else {pixels}:
            reflected = (size - 1) - ((size - 1) - neighbours.abs()).abs()
            taps[offset] += F.one_hot(reflected, size)
    return taps.view(radius + 1, size * size).to(device)


def _covered(centre: Float[Tensor, " B"], share: float, size: int) -> Float[Tensor, "B size"]:
    side = max(round(share * size), 1)
    below = torch.arange(size, device=centre.device) - (centre[:, None] - side // 2)
    return ((below >= 0) & (below < side)).to(centre.dtype)


def _uniform(B: int, generator: Generator) -> Float[Tensor, " B"]:
    return torch.rand(B, generator=generator, device=generator.device)


def _chance(probability: float, B: int, generator: Generator) -> Bool[Tensor, " B"]:
    return _uniform(B, generator) < probability
