"""Colours of whole batches, each sample with its own strength, in place. Meanings are torchvision's, for pixels in [0, 1]."""

import torch
from jaxtyping import Float
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue in a grey pixel (ITU-R BT.601)


def brightness_(images: Float[Tensor, "B C H W"], factor: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
    """Scale all pixels and clip to [0, 1]."""
    return images.mul_(_per_sample(factor)).clamp_(0, 1)


def contrast_(images: Float[Tensor, "B C H W"], factor: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
    """Move all pixels away from the mean grey of their image and clip to [0, 1]."""
    means = images.mean(dim=(2, 3))
    grey = means @ means.new_tensor(LUMA) if images.shape[1] == 3 else means.mean(dim=1)
    return images.mul_(_per_sample(factor)).add_(_per_sample((1 - factor) * grey)).clamp_(0, 1)


def saturation_(images: Float[Tensor, "B C H W"], factor: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
    """Move all pixels away from their own grey and clip to [0, 1]; images that are not RGB stay as they are."""
    if images.shape[1] != 3:
        return images
    grey = to_grayscale(images).mul_(_per_sample(1 - factor))
    return images.mul_(_per_sample(factor)).add_(grey).clamp_(0, 1)


def hue_(images: Float[Tensor, "B 3 H W"], turns: Float[Tensor, " B"]) -> Float[Tensor, "B 3 H W"]:
    """Turn the hue by a share of the circle, at most half of it either way, with HSV saturation and value kept.

    What the usual six cases say, without the cases. With C = max - min the hue goes as 1/3 + (g + b - r - max) / 6C from 0 at
    red over 1/3 at green to 1/2 at cyan, and over blue as its negative. Back again, each channel rises by C over one sixth of the
    circle and falls over another.
    """
    red, green, blue = images.unbind(dim=1)
    most = torch.maximum(torch.maximum(red, green), blue)
    least = torch.minimum(torch.minimum(red, green), blue)
    slope = (most - least).clamp_(min=1e-12).mul_(6)
    hue = (green + blue).sub_(red).sub_(most).div_(slope).add_(1 / 3).copysign_(green - blue)
    hue.add_((1 + turns)[:, None, None]).frac_()
    risen, fallen = torch.empty_like(hue), torch.empty_like(hue)
    for channel, rise, fall, at_red in ((red, 4, 1, -1 / 3), (green, 0, 3, 1 / 2), (blue, 2, 5, 1 / 2)):
        torch.clamp(hue, rise / 6, (rise + 1) / 6, out=risen)
        torch.clamp(hue, fall / 6, (fall + 1) / 6, out=fallen)
        torch.addcmul(least, slope, risen.sub_(fallen).add_(at_red), out=channel)
    return images


def to_grayscale(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
    """The luma of each pixel."""
    red, green, blue = images.unbind(dim=1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]


def solarize_(images: Float[Tensor, "B C H W"], threshold: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
    """Invert all pixels from the threshold upwards."""
    bright = images.clone().ge_(_per_sample(threshold))  # 1 or 0, to mix with: on a CPU `where` is 10 times slower
    return images.addcmul_(bright, images.mul(-2).add_(1))


def _per_sample(values: Float[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
    return values[:, None, None, None]
