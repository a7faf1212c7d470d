"""RandAugment: a few operations of one magnitude, chosen at random for each sample. Cubuk et al. 2020.

Operations, magnitudes and signs are those of torchvision's `RandAugment`, except that images are resampled bilinearly where its
default is the nearest pixel. Equalize and Posterize work on the 256 levels of 8-bit images.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Generator, Tensor

from ml.views import adjust, drawn
from ml.views.affine import Matrices, affine, rotation, shear_x, shear_y, translation

STRONGEST = 30  # magnitudes are counted from 0 to here
Strengths = Float[Tensor, " B"]  # in [-1, 1]: the magnitude over the strongest, with its sign


def randaugment_(
    images: Float[Tensor, "B C H W"], n: int, magnitude: int, where: Bool[Tensor, " B"], generator: Generator
) -> Float[Tensor, "B C H W"]:
    """Do `n` of the 14 operations to each image `where` it is true, one after the other, each of them as likely; in place."""
    shape = len(images), n
    operations = torch.randint(len(OPERATIONS), shape, generator=generator, device=images.device)
    signs = 2 * torch.randint(2, shape, generator=generator, device=images.device) - 1
    operations = torch.where(where[:, None], operations, 0)
    drawn.note("RandAugment", operations, where=where, names=OPERATIONS)
    for chosen, sign in zip(operations.T, signs.T, strict=True):
        operate_(images, chosen, sign * (magnitude / STRONGEST))
    return images


def operate_(images: Float[Tensor, "B C H W"], operations: Int64[Tensor, " B"], strengths: Strengths) -> Float[Tensor, "B C H W"]:
    """Do to each image the operation of this number; in place."""
    H, W = images.shape[-2:]
    counts = torch.bincount(operations, minlength=len(OPERATIONS)).tolist()
    order = operations.argsort()
    grouped, strengths = images.index_select(0, order), strengths[order]
    groups = dict(zip(OPERATIONS, zip(grouped.split(counts), strengths.split(counts), strict=True), strict=True))
    matrices = torch.cat([move(groups[name][1], H, W) for name, move in MOVES.items()])
    moved = grouped[counts[0] :][: len(matrices)]  # all that move stand together, after the identity
    moved.copy_(affine(moved, matrices))
    for name, change in CHANGES.items():
        some, strength = groups[name]
        some.copy_(change(some, strength))
    torch.index_select(grouped, 0, order.argsort(), out=images)
    return images


def posterize(images: Float[Tensor, "B C H W"], strengths: Strengths) -> Float[Tensor, "B C H W"]:
    """Keep the 8 to 4 most significant bits."""
    step = 2 ** (4 * strengths.abs()).round()[:, None, None, None]
    return (_levels(images) / step).floor_().mul_(step).div_(255)


def sharpen_(images: Float[Tensor, "B C H W"], strengths: Strengths) -> Float[Tensor, "B C H W"]:
    """Move the pixels away from, or towards, a mean of 3 by 3 in which the middle weighs 5 times; the border stays; in place."""
    H, W = images.shape[-2:]
    if min(H, W) <= 2:
        return images
    inner = images[..., 1:-1, 1:-1]
    beside = images[..., :-2] + images[..., 1:-1] + images[..., 2:]
    smooth = (beside[..., :-2, :] + beside[..., 1:-1, :] + beside[..., 2:, :]).add_(inner, alpha=4).div_(13)
    inner.add_((inner - smooth).mul_(strengths[:, None, None, None]))
    return images.clamp_(0, 1)


def autocontrast(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Stretch each channel to [0, 1], unless it has one value only."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    flat = low == high
    return (images - low.masked_fill(flat, 0)).div_((high - low).masked_fill(flat, 1)).clamp_(0, 1)


def equalize(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Give each channel, as far as its levels allow, as many pixels of one level as of another."""
    levels = _levels(images).long().flatten(0, 1).flatten(1)
    channels, pixels = levels.shape
    numbered = levels + 256 * torch.arange(channels, device=images.device)[:, None]
    counts = torch.bincount(numbered.flatten(), minlength=256 * channels).view(channels, 256)
    step = (pixels - counts.gather(1, levels.amax(dim=1, keepdim=True))) // 255
    below = counts.cumsum(dim=1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))  # too few pixels to tell apart
    return (table.float() / 255).take(numbered).view_as(images)


def _levels(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    return (images * 255.999).floor_().clamp_(0, 255)  # as torchvision turns floats to bytes


def _pixels(strengths: Strengths, side: int) -> Strengths:
    return (strengths * (150 / 331 * side)).trunc()


MOVES: dict[str, Callable[[Strengths, int, int], Matrices]] = {
    "ShearX": lambda strengths, H, W: shear_x(0.3 * strengths, H, W),
    "ShearY": lambda strengths, H, W: shear_y(0.3 * strengths, H, W),
    "TranslateX": lambda strengths, H, W: translation(_pixels(strengths, W), torch.zeros_like(strengths)),
    "TranslateY": lambda strengths, H, W: translation(torch.zeros_like(strengths), _pixels(strengths, H)),
    "Rotate": lambda strengths, H, W: rotation(30 * strengths),
}
CHANGES: dict[str, Callable[[Tensor, Strengths], Tensor]] = {
    "Brightness": lambda images, strengths: adjust.brightness_(images, 1 + 0.9 * strengths),
    "Color": lambda images, strengths: adjust.saturation_(images, 1 + 0.9 * strengths),
    "Contrast": lambda images, strengths: adjust.contrast_(images, 1 + 0.9 * strengths),
    "Sharpness": lambda images, strengths: sharpen_(images, 0.9 * strengths),
    "Posterize": posterize,
    "Solarize": lambda images, strengths: adjust.solarize_(images, 1 - strengths.abs()),
    "AutoContrast": lambda images, strengths: autocontrast(images),
    "Equalize": lambda images, strengths: equalize(images),
}
OPERATIONS = ("Identity", *MOVES, *CHANGES)
