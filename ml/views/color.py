"""Colour spaces of RGB images, as scikit-image converts to them and in its units: sRGB primaries, D65 white, 2° observer."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ml import spec

Matrix = Sequence[Sequence[float]]

CHANNELS: dict[spec.ColorSpace, tuple[str, str, str]] = {
    "rgb": ("red", "green", "blue"),
    "hsv": ("hue", "saturation", "value"),
    "hed": ("haematoxylin", "eosin", "DAB"),
    "lab": ("L", "a", "b"),
    "luv": ("L", "u", "v"),
    "yuv": ("Y", "U", "V"),
    "xyz": ("X", "Y", "Z"),
    "ycbcr": ("Y", "Cb", "Cr"),
    "ydbdr": ("Y", "Db", "Dr"),
    "ypbpr": ("Y", "Pb", "Pr"),
    "yiq": ("Y", "I", "Q"),
}
"""What the channels of each space are called."""

# The rows of chroma sum to zero, since a grey has none: so they span one and the same plane in all five spaces.
_YUV = ((0.299, 0.587, 0.114), (-0.14714119, -0.28886916, 0.43601035), (0.61497538, -0.51496512, -0.10001026))
_YIQ = ((0.299, 0.587, 0.114), (0.59590059, -0.27455667, -0.32134392), (0.21153661, -0.52273617, 0.31119955))
_YPBPR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_YDBDR = ((0.299, 0.587, 0.114), (-0.45, -0.883, 1.333), (-1.333, 1.116, 0.217))
_YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))  # ITU-R BT.601, 8 bits

_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))  # of linear light
_WHITE = (0.95047, 1.0, 1.08883)  # X, Y and Z of D65
_XYZ_OVER_WHITE = tuple(tuple(weight / white for weight in row) for row, white in zip(_XYZ, _WHITE, strict=True))

_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))  # red, green, blue absorbed. Ruifrok, Johnston 2001
_UNMIXING = torch.tensor(_STAINS, dtype=torch.float64).inverse().T.tolist()


def to_color_space(images: Float[Tensor, "B 3 H W"], space: spec.ColorSpace) -> Float[Tensor, "B 3 H W"]:
    """RGB in [0, 1] to another space, every pixel for itself.

    Units are scikit-image's: L from 0 to 100, Y of YCbCr from 16 to 235, hue in turns, XYZ with a white of Y = 1, stains as
    absorbances over that of a pixel of 1e-6.
    """
    return _CONVERSIONS[space](images)


def _hsv(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Greys have hue 0."""
    red, green, blue = images.unbind(dim=1)
    value = images.amax(dim=1)
    chroma = value - images.amin(dim=1)
    is_green, is_blue = green.clone().eq_(value), blue.clone().eq_(value)
    sixths = (green - blue).lerp_((blue - red).add_(chroma, alpha=2), is_green)
    sixths.lerp_((red - green).add_(chroma, alpha=4), is_blue)
    hue = sixths.div_(chroma.clamp(min=1e-12).mul_(6))
    hue.sub_(hue.floor()).mul_(chroma.sign())
    return torch.stack((hue, chroma / value.clamp(min=1e-12), value), dim=1)


def _hed(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    absorbed = images.clamp(min=1e-6).log_().div_(math.log(1e-6))
    return _mixed(absorbed, _UNMIXING).clamp_(min=0)


def _xyz(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    return _mixed(_linear_light(images), _XYZ)


def _lab(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    relative = _mixed(_linear_light(images), _XYZ_OVER_WHITE)
    bright, roots = relative.clone().gt_(0.008856), _power_(relative.clone(), 1 / 3)
    x, y, z = relative.mul_(7.787).add_(16 / 116).lerp_(roots, bright).unbind(dim=1)
    return torch.stack((116 * y - 16, (x - y).mul_(500), (y - z).mul_(200)), dim=1)


def _luv(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Black has no chroma: there L is 0, whatever u and v would be."""
    x, y, z = _xyz(images).unbind(dim=1)
    bright, roots = y.clone().gt_(0.008856), _power_(y.clone(), 1 / 3)
    lightness = (y * 903.3).lerp_(roots.mul_(116).sub_(16), bright)
    total = x.add(y, alpha=15).add_(z, alpha=3).clamp_(min=1e-12)
    white = _WHITE[0] + 15 * _WHITE[1] + 3 * _WHITE[2]
    u, v = (x * 4).div_(total).sub_(4 * _WHITE[0] / white), (y * 9).div_(total).sub_(9 * _WHITE[1] / white)
    return torch.stack((lightness, u.mul_(lightness).mul_(13), v.mul_(lightness).mul_(13)), dim=1)


def _ycbcr(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    return _mixed(images, _YCBCR) + images.new_tensor((16, 128, 128))[:, None, None]


def _linear_light(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """sRGB's transfer function undone. IEC 61966-2-1."""
    bright = images.clone().gt_(0.04045)  # 1 or 0, to mix with: on a CPU `where` is 10 times slower
    return (images / 12.92).lerp_(_power_((images + 0.055).div_(1.055), 2.4), bright)


def _power_(values: Float[Tensor, "..."], exponent: float) -> Float[Tensor, "..."]:
    """In place, of values above 0.001 (smaller ones are taken for it): half the time of `pow`."""
    return values.clamp_(min=1e-3).log2_().mul_(exponent).exp2_()


def _mixed(images: Float[Tensor, "B 3 H W"], matrix: Matrix) -> Float[Tensor, "B 3 H W"]:
    return torch.matmul(images.new_tensor(matrix), images.flatten(2)).view_as(images)


_CONVERSIONS: dict[spec.ColorSpace, Callable[[Tensor], Tensor]] = {
    "rgb": lambda images: images,
    "hsv": _hsv,
    "hed": _hed,
    "lab": _lab,
    "luv": _luv,
    "yuv": partial(_mixed, matrix=_YUV),
    "xyz": _xyz,
    "ycbcr": _ycbcr,
    "ydbdr": partial(_mixed, matrix=_YDBDR),
    "ypbpr": partial(_mixed, matrix=_YPBPR),
    "yiq": partial(_mixed, matrix=_YIQ),
}
