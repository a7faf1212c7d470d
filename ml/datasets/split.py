"""Splits: what hands out batches of items, by the layout of their dataset."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor


class Split(ABC):
    """Items of a dataset, and what can be predicted of each."""

    targets: Mapping[str, Tensor]
    """By name: class indices int64 [N], -1 where an item has no label, or places in pixels float [N, 2]."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, items: Int64[Tensor, " B"]) -> Any:
        """The items with these indices, on the device, as view families are given them."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """Numbers as they are stored, on the device or memory-mapped, and the two of them that become 0 and 1."""

    stored: Shaped[Tensor, "N ..."]
    range: tuple[float, float]
    device: torch.device

    def take(self, items: Int64[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Those with these indices, scaled to [0, 1] by the range, on the device."""
        chosen = self.stored[items.to(self.stored.device)].to(self.device)
        return self.scaled(chosen)

    def scaled(self, stored: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Stored numbers in the unit in which views are made."""
        low, high = self.range
        pixels = stored.to(torch.float32)
        return pixels.sub_(low).div_(high - low) if low else pixels.div_(high)


class ImageSplit(Split):
    """Square images of one size: items are float [B C H H]."""

    def __init__(self, pixels: Pixels, targets: Mapping[str, Tensor]) -> None:
        self.pixels = pixels
        self.targets = targets

    def __len__(self) -> int:
        return len(self.pixels.stored)

    def take(self, items: Int64[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
        """The images, pixels scaled to [0, 1]."""
        return self.pixels.take(items)


class PairSplit(Split):
    """Two arrays of items that belong together: items are two float batches."""

    def __init__(self, first: Pixels, second: Pixels, targets: Mapping[str, Tensor]) -> None:
        self.first = first
        self.second = second
        self.targets = targets

    def __len__(self) -> int:
        return len(self.first.stored)

    def take(self, items: Int64[Tensor, " B"]) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B D I J"]]:
        """v1 and v2 of each item, each scaled to [0, 1] by its own range."""
        return self.first.take(items), self.second.take(items)
