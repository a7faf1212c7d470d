"""The augmentations of SimCLR as batched tensor code. Chen et al. 2020, appendix A; meanings are torchvision's."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from ml import spec, views
from ml.views import Views
from ml.views.resample import apply_separable, resized_boxes

LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue in a grey pixel (ITU-R BT.601)


@views.implements(spec.Augment)
def augment(recipe: spec.Augment, images: Float[Tensor, "B C H W"], generator: Generator) -> Views:
    """Random resized crop, flip, colour jitter, grayscale, blur, each with its own chance for each sample and view.

    The jitter is brightness, contrast, saturation, hue, always in this order (torchvision's `ColorJitter` shuffles the four).
    """
    return _augmented(recipe, images, generator), _augmented(recipe, images, generator)


def random_boxes(
    scale_min: float, ratio: tuple[float, float], B: int, H: int, W: int, generator: Generator
) -> Float[Tensor, "4 B"]:
    """Top, left, height and width of random resized crops in whole pixels, drawn as torchvision's `RandomResizedCrop` does.

    Of ten draws of an area uniform in (scale_min, 1) and a log-uniform ratio the first that fits; else the central crop that
    comes nearest.
    """
    area, log_ratio, down, right = torch.rand(4, B, 10, generator=generator, device=generator.device)
    area = (scale_min + (1 - scale_min) * area) * H * W
    low, high = math.log(ratio[0]), math.log(ratio[1])
    root = torch.exp((low + (high - low) * log_ratio) / 2)
    widths, heights = (area.sqrt() * root).round(), (area.sqrt() / root).round()
    fits = (widths >= 1) & (widths <= W) & (heights >= 1) & (heights <= H)
    first = fits.int().argmax(dim=1, keepdim=True)
    width, height = widths.gather(1, first)[:, 0], heights.gather(1, first)[:, 0]
    top = (down.gather(1, first)[:, 0] * (H - height + 1)).floor()
    left = (right.gather(1, first)[:, 0] * (W - width + 1)).floor()
    nearest = min(max(W / H, ratio[0]), ratio[1])
    central_height, central_width = round(min(H, W / nearest)), round(min(W, H * nearest))
    central = (round((H - central_height) / 2), round((W - central_width) / 2), central_height, central_width)
    drawn = torch.stack((top, left, height, width))
    return torch.where(fits.any(dim=1), drawn, drawn.new_tensor(central)[:, None])


def adjust_brightness(images: Float[Tensor, "B C H W"], factor: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
    """Scale all pixels by each sample's factor and clip to [0, 1]."""
    return (images * _per_sample(factor)).clamp_(0, 1)


def adjust_contrast(images: Float[Tensor, "B C H W"], factor: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
    """Move all pixels away from the mean grey of their image by each sample's factor and clip to [0, 1]."""
    means = images.mean(dim=(2, 3))
    grey = means @ means.new_tensor(LUMA) if images.shape[1] == 3 else means.mean(dim=1)
    return (images * _per_sample(factor)).add_(_per_sample((1 - factor) * grey)).clamp_(0, 1)


def adjust_saturation(images: Float[Tensor, "B 3 H W"], factor: Float[Tensor, " B"]) -> Float[Tensor, "B 3 H W"]:
    """Move all pixels away from their own grey by each sample's factor and clip to [0, 1]."""
    grey = to_grayscale(images).mul_(_per_sample(1 - factor))
    return (images * _per_sample(factor)).add_(grey).clamp_(0, 1)


def adjust_hue(images: Float[Tensor, "B 3 H W"], turns: Float[Tensor, " B"]) -> Float[Tensor, "B 3 H W"]:
    """Turn the hue by each sample's share of the circle, with HSV saturation and value kept.

    Of the hexagon's two ramps and four flats, the colour with hue h has channel n at V - C clip(2 - 6 d, 0, 1), where d is the
    distance on the circle from h to the opposite of n's own hue: what the usual six cases say, without the cases.
    """
    red, green, blue = images.unbind(dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    is_red, is_green = (
        red.clone().eq_(value),
        green.clone().eq_(value),
    )  # 1 or 0, to mix with: on a CPU `where` is 10 times slower
    sixths = (red - green).add_(chroma, alpha=4)
    sixths.lerp_((blue - red).add_(chroma, alpha=2), is_green).lerp_(green - blue, is_red)
    hue = sixths.div_(chroma.clamp(min=1e-12).mul_(6)).add_(turns[:, None, None])
    opposite = images.new_tensor((1 / 2, 5 / 6, 1 / 6))
    distance = hue[:, None] - opposite[:, None, None]
    distance.sub_(distance.round()).abs_()
    ramp = torch.rsub(distance, 2, alpha=6).clamp_(0, 1)
    return torch.addcmul(value[:, None], chroma[:, None], ramp, value=-1)


def to_grayscale(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
    """The luma of each pixel."""
    red, green, blue = images.unbind(dim=1)
    grey = (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
    return grey[:, None]


def gaussian_blur(images: Float[Tensor, "B C H W"], sigma: Float[Tensor, " B"], radius: int) -> Float[Tensor, "B C H W"]:
    """Blur each image with its own sigma in pixels, kernels cut at `radius` pixels, edges reflected."""
    return apply_separable(
        images, _blur_matrices(sigma, radius, images.shape[-2]), _blur_matrices(sigma, radius, images.shape[-1])
    )


def _augmented(recipe: spec.Augment, images: Float[Tensor, "B C H W"], generator: Generator) -> Float[Tensor, "B C H W"]:
    B, C, H, W = images.shape
    box = random_boxes(recipe.crop_scale_min, recipe.crop_ratio, B, H, W, generator)
    box = torch.where(_chance(recipe.crop_p, B, generator), box, box.new_tensor((0, 0, H, W))[:, None])
    top, left, height, width = box
    images = resized_boxes(images, top, left, height, width, flip=_chance(recipe.flip_p, B, generator))
    images = _jittered(recipe, images, generator)
    if C == 3 and recipe.grayscale_p > 0:
        images = adjust_saturation(images, (~_chance(recipe.grayscale_p, B, generator)).to(images.dtype))
    if recipe.blur_p > 0:
        low, high = recipe.blur_sigma
        sigma = low + (high - low) * _uniform(B, generator)
        sigma = torch.where(_chance(recipe.blur_p, B, generator), sigma, 1e-3)  # so narrow a kernel is the identity
        images = gaussian_blur(images, sigma, radius=min(math.ceil(3 * high), H - 1, W - 1))
    return images


def _jittered(recipe: spec.Augment, images: Float[Tensor, "B C H W"], generator: Generator) -> Float[Tensor, "B C H W"]:
    if recipe.jitter == 0 or recipe.jitter_p == 0:
        return images
    B, C, _, _ = images.shape
    chosen = _chance(recipe.jitter_p, B, generator)
    strength = 0.8 * recipe.jitter
    low, high = max(0.0, 1 - strength), 1 + strength
    factors = low + (high - low) * torch.rand(3, B, generator=generator, device=generator.device)
    brightness, contrast, saturation = torch.where(chosen, factors, 1.0)
    images = adjust_contrast(adjust_brightness(images, brightness), contrast)
    if C != 3:
        return images
    most = min(0.2 * recipe.jitter, 0.5)
    turns = torch.where(chosen, most * (2 * _uniform(B, generator) - 1), 0.0)
    return adjust_hue(adjust_saturation(images, saturation), turns)


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


def _uniform(B: int, generator: Generator) -> Float[Tensor, " B"]:
    return torch.rand(B, generator=generator, device=generator.device)


def _chance(probability: float, B: int, generator: Generator) -> Bool[Tensor, " B"]:
    return _uniform(B, generator) < probability


def _per_sample(values: Tensor) -> Tensor:
    return values[:, None, None, None]
