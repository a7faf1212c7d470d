"""Rotation, shear and translation of whole batches, each sample with its own; bilinear, black where the image ends.

A matrix [2 3] takes a pixel of the result, x to the right and y down from the image's centre, to the place in the image from
where it is taken. Signs are torchvision's.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Matrices = Float[Tensor, "B 2 3"]


def affine(images: Float[Tensor, "B C H W"], matrices: Matrices) -> Float[Tensor, "B C H W"]:
    """Each image seen through its own matrix."""
    H, W = images.shape[-2:]
    x = torch.arange(W, device=images.device) - (W - 1) / 2
    y = torch.arange(H, device=images.device) - (H - 1) / 2
    by_x, by_y, shift = (matrices * matrices.new_tensor((2 / W, 2 / H))[:, None]).split(1, dim=2)  # sides are 2 there
    along, down = (by_x * x + shift).transpose(1, 2), (by_y * y).transpose(1, 2)
    grid = along[:, None] + down[:, :, None]
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def rotation(degrees: Float[Tensor, " B"]) -> Matrices:
    """Anticlockwise about the centre."""
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    return _matrices(degrees, ((cos, -sin, 0), (sin, cos, 0)))


def shear_x(slope: Float[Tensor, " B"], H: int, W: int) -> Matrices:
    """The top row stays; every row below moves left by `slope` pixels more."""
    return _matrices(slope, ((1, slope, slope * H / 2), (0, 1, 0)))


def shear_y(slope: Float[Tensor, " B"], H: int, W: int) -> Matrices:
    """The left column stays; every column to its right moves up by `slope` pixels more."""
    return _matrices(slope, ((1, 0, 0), (slope, 1, slope * W / 2)))


def translation(right: Float[Tensor, " B"], down: Float[Tensor, " B"]) -> Matrices:
    """By pixels."""
    return _matrices(right, ((1, 0, -right), (0, 1, -down)))


def _matrices(like: Float[Tensor, " B"], rows: tuple[tuple[Tensor | int, ...], ...]) -> Matrices:
    return torch.stack([torch.stack([torch.zeros_like(like) + entry for entry in row], dim=1) for row in rows], dim=1)
