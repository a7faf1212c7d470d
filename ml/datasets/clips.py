"""Clips that are stored as their frames."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ml.datasets.split import Pixels, Split


class Clips:
    """A batch of clips, whose frames are fetched as they are asked for."""

    def __init__(self, pixels: Pixels, items: Int64[Tensor, " B"]) -> None:
        self.pixels = pixels
        self.items = items
        self.length = pixels.stored.shape[1]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def device(self) -> torch.device:
        """Where the frames will be."""
        return self.pixels.device

    def frames(self, times: Int64[Tensor, "B T"]) -> Float[Tensor, "B T C H W"]:
        """The frames of each clip at its own times, counted from 0."""
        where = self.pixels.stored.device
        chosen = self.pixels.stored[self.items.to(where)[:, None], times.to(where)]
        return self.pixels.scaled(chosen.to(self.device))


class ClipSplit(Split):
    """Clips [N T C H H]: items are `Clips`."""

    def __init__(self, pixels: Pixels, targets: Mapping[str, Tensor]) -> None:
        self.pixels = pixels
        self.targets = targets

    def __len__(self) -> int:
        return len(self.pixels.stored)

    def take(self, items: Int64[Tensor, " B"]) -> Clips:
        """The clips, none of their frames fetched yet."""
        return Clips(self.pixels, items)
