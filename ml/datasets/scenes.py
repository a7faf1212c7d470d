"""Colorful Moving-MNIST, made on the device: a white digit wanders over a background that stands still. Tian et al. 2020, 4.4.

A scene has three factors: the digit (which handwriting), the background (which image, and which crop of it) and the position
(where the digit starts and in which direction it goes, and so where it is at any time). They are independent of each other.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor

from ml.datasets.split import Split

Factor = Literal["digit", "background", "position"]

CANVAS = 64  # pixels, as all sizes here
DIGIT = 28
SPEED = 0.1 * CANVAS  # a frame
PAST = 10  # frames that are known, at times 0 to 9
LATER = 11  # the time of the later image: the frame after next
LENGTH = 20  # frames of a clip

_ROOM = CANVAS - DIGIT
_FIELDS: dict[Factor, tuple[str, ...]] = {
    "digit": ("digits",),
    "background": ("backgrounds", "crops"),
    "position": ("starts", "directions"),
}


class SceneSplit(Split):
    """Digits and backgrounds of one split, and a scene for each digit: item i shows digit i.

    The rest of an item's canonical scene is drawn once, from `seed`. `targets` are those of the canonical scenes: the classes of
    `digit` and of `background` (where there are classes), and as `position` the digit's centre in the later image in pixels,
    (row, column) from the upper left corner of the canvas.
    """

    def __init__(
        self,
        digits: UInt8[Tensor, "N 28 28"],
        digit_labels: Int64[Tensor, " N"],
        backgrounds: UInt8[Tensor, "M 3 h w"],
        background_labels: Int64[Tensor, " M"] | None,
        seed: int,
    ) -> None:
        """Digits are light on dark. Small backgrounds are enlarged to the canvas, of large ones a scene shows a crop."""
        self.digits = digits
        self.digit_labels = digit_labels
        self.backgrounds = backgrounds
        self.order = digit_labels.argsort(stable=True)
        self.class_sizes = torch.bincount(digit_labels)
        drawn = self.draw(len(digits), Generator().manual_seed(seed))  # on the CPU: the same scenes on every device
        self.scenes = replace(
            drawn.each(lambda parameter: parameter.to(digits.device)), digits=torch.arange(len(digits), device=digits.device)
        )
        later = torch.full((len(digits), 1), LATER, device=digits.device)
        self.targets = {"digit": digit_labels, "position": self.scenes.positions(later)[:, 0]}
        if background_labels is not None:
            self.targets["background"] = background_labels[self.scenes.backgrounds]

    def __len__(self) -> int:
        return len(self.digits)

    def take(self, items: Int64[Tensor, " B"]) -> "Scenes":
        """The canonical scenes of these items."""
        return self.scenes.each(lambda parameter: parameter[items])

    def draw(self, scenes: int, generator: Generator) -> "Scenes":
        """So many scenes of which every factor is left to chance."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=generator.device)

        return Scenes(
            split=self,
            digits=torch.randint(len(self.digits), (scenes,), generator=generator, device=generator.device),
            backgrounds=torch.randint(len(self.backgrounds), (scenes,), generator=generator, device=generator.device),
            crops=uniform(scenes, 2),
            starts=_ROOM * uniform(scenes, 2),
            directions=2 * math.pi * uniform(scenes),
        )


@dataclass(frozen=True, eq=False)
class Scenes:
    """A batch of scenes: what is to be seen, drawn as it is asked for."""

    split: SceneSplit
    digits: Int64[Tensor, " B"]
    backgrounds: Int64[Tensor, " B"]
    crops: Float[Tensor, "B 2"]
    """Where in its image the background is cut out, down and across, as shares of the room there is."""
    starts: Float[Tensor, "B 2"]
    """The digit's upper left corner at time 0, (row, column) in pixels."""
    directions: Float[Tensor, " B"]
    """In which the digit sets out, in radians from right to down."""
    length: int = LENGTH

    def __len__(self) -> int:
        return len(self.digits)

    @property
    def device(self) -> torch.device:
        """Where the frames will be."""
        return self.digits.device

    def each(self, change: Callable[[Tensor], Tensor]) -> "Scenes":
        """The scenes with each of their parameters changed."""
        changed: dict[str, Any] = {field: change(getattr(self, field)) for fields in _FIELDS.values() for field in fields}
        return replace(self, **changed)

    def redrawn(self, keep: Iterable[Factor], generator: Generator) -> "Scenes":
        """Scenes that have these factors in common with the present ones; the others are drawn anew and independently."""
        kept: dict[str, Any] = {field: getattr(self, field) for factor in keep for field in _FIELDS[factor]}
        return replace(self.split.draw(len(self), generator), **kept)

    def rewritten(self, generator: Generator) -> "Scenes":
        """The same scenes with digits drawn anew out of the same classes, so that the views share the class and no more."""
        labels, sizes = self.split.digit_labels[self.digits], self.split.class_sizes
        chances = torch.rand(len(self), generator=generator, device=generator.device)
        within = (chances * sizes[labels]).long().clamp_(max=sizes[labels] - 1)
        return replace(self, digits=self.split.order[(sizes.cumsum(0) - sizes)[labels] + within])

    def positions(self, times: Int64[Tensor, "B T"]) -> Float[Tensor, "B T 2"]:
        """Centres of the digits at these times, (row, column) in pixels; walls reflect.

        A straight line in a plane tiled with mirrored rooms, folded back into the first one.
        """
        heading = torch.stack((self.directions.sin(), self.directions.cos()), dim=1)
        straight = self.starts[:, None] + SPEED * times[:, :, None] * heading[:, None]
        return DIGIT / 2 + _ROOM - (straight.remainder(2 * _ROOM) - _ROOM).abs()

    def frames(self, times: Int64[Tensor, "B T"]) -> Float[Tensor, "B T 3 64 64"]:
        """The scenes at these times, in [0, 1]; a digit's grey is the share of white that covers the background.

        Digits lie between pixels too, by linear interpolation.
        """
        pixels = torch.arange(CANVAS, device=times.device)
        corners = self.positions(times) - DIGIT / 2
        down, across = (_interpolation(pixels - corner[:, :, None], DIGIT) for corner in corners.unbind(2))
        digits = self.split.digits[self.digits].float().div_(255)
        cover = (down @ digits[:, None] @ across.mT)[:, :, None]
        background = self._background()[:, None]
        return torch.addcmul(background, cover, 1 - background)

    def _background(self) -> Float[Tensor, "B 3 64 64"]:
        images = self.split.backgrounds[self.backgrounds].float().div_(255)
        H, W = images.shape[-2:]
        side = min(CANVAS, H, W)
        corners = (self.crops * self.crops.new_tensor((H - side + 1, W - side + 1))).floor()
        within = (torch.arange(CANVAS, device=images.device) + 0.5) * (side / CANVAS) - 0.5
        down, across = (corners[:, :, None] + within.clamp_(0, side - 1)).unbind(1)
        return _interpolation(down, H)[:, None] @ images @ _interpolation(across, W)[:, None].mT


def _interpolation(at: Float[Tensor, "*B K"], pixels: int) -> Float[Tensor, "*B K pixels"]:
    """Weights of an axis's pixels in the values at these coordinates, linear between two; beyond the ends there is nothing."""
    return (at[..., None] - torch.arange(pixels, device=at.device)).abs_().neg_().add_(1).relu_()
