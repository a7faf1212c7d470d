"""Photographs of any sizes, out of which patches are cut."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ml.datasets.split import Pixels, Split


@dataclass(frozen=True, eq=False)
class Photographs:
    """A batch of photographs, of which patches are fetched as they are asked for."""

    pixels: Pixels
    """Of all photographs, one after another."""
    offsets: Int64[Tensor, " B"]
    heights: Int64[Tensor, " B"]
    widths: Int64[Tensor, " B"]
    strides: Int64[Tensor, "B 3"]
    """From a number to the one of the next channel, of the next row and of the next column."""
    channels: int = 3

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def device(self) -> torch.device:
        """Where the patches will be."""
        return self.pixels.device

    def patches(self, top: Int64[Tensor, " B"], left: Int64[Tensor, " B"], size: int) -> Float[Tensor, "B C size size"]:
        """A square of `size` pixels out of each photograph, pixels scaled to [0, 1]."""
        channel_stride, row_stride, column_stride = self.strides.unbind(dim=1)
        channel, row = torch.arange(self.channels, device=top.device), torch.arange(size, device=top.device)
        channels = self.offsets[:, None] + channel * channel_stride[:, None]
        rows, columns = (top[:, None] + row) * row_stride[:, None], (left[:, None] + row) * column_stride[:, None]
        return self.pixels.take(channels[:, :, None, None] + rows[:, None, :, None] + columns[:, None, None, :])


class PhotographSplit(Split):
    """Photographs of a split. There are few of them and many places in each, so indices go round and round."""

    def __init__(self, pixels: Pixels, shapes: Int64[Tensor, "N 3"], channels: int = 3, in_planes: bool = False) -> None:
        """Offset, height and width of each photograph in the flat pixels, in rows of channels or a plane for each channel."""
        _, heights, widths = shapes.unbind(dim=1)
        ones = torch.ones_like(widths)
        strides = (heights * widths, widths, ones) if in_planes else (ones, channels * widths, channels * ones)
        self.pixels = pixels
        self.shapes = shapes
        self.strides = torch.stack(strides, dim=1)
        self.channels = channels
        self.targets = {}

    def __len__(self) -> int:
        return len(self.shapes)

    def take(self, items: Int64[Tensor, " B"]) -> Photographs:
        """The photographs with these indices."""
        offsets, heights, widths = self.shapes[items].unbind(dim=1)
        return Photographs(self.pixels, offsets, heights, widths, self.strides[items], self.channels)


def of_images(images: Shaped[Tensor, "N C H W"], value_range: tuple[float, float], device: torch.device) -> PhotographSplit:
    """Images of one size as photographs."""
    N, C, H, W = images.shape
    offsets = torch.arange(N, device=device) * (C * H * W)
    shapes = torch.stack((offsets, torch.full_like(offsets, H), torch.full_like(offsets, W)), dim=1)
    return PhotographSplit(Pixels(images.flatten(), value_range, device), shapes, C, in_planes=True)
