"""Views as tiles: images that can be looked at, each with its name, and how numbers became colours."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ml.datasets.split import Pixels
from ml.learned_views import Found
from ml.spec import ColorSplit, Family, Frequency, Learned
from ml.views.color import CHANNELS
from ml.views.drawn import in_digits

TRUE_COLOUR = {13: (3, 2, 1)}  # red, green and blue among the bands of Sentinel-2, by the number of bands
CENTRAL = 0.99  # share of the numbers that lie between black and white where these are not given
SHARE = f"central {100 * CENTRAL:.0f} %"
HALF_A_LEVEL = 0.5 / 255
ENOUGH = 2**20  # numbers to tell a range from
LEARNED = ("g1", "g2", "g3")  # channels of a learned colour space

Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Tiles:
    """One view of each pair as images side by side: its frames, or its channels."""

    images: UInt8[Tensor, "B T 3 H W"]
    names: tuple[str, ...] = ()
    """What stands under each image; none where there is nothing to be told apart."""
    rendering: str = ""
    """How numbers became colours; empty where they are the colours."""


def of_views(
    recipe: Family,
    v1: Float[Tensor, "B *T C H W"],
    v2: Float[Tensor, "B *S D I J"],
    stored: tuple[Pixels | None, Pixels | None],
) -> tuple[Tiles, Tiles]:
    """Both views in the colours that their numbers mean, or in others, as `rendering` tells.

    `stored` are the pixels from which each view was made, where it was made from pixels: of bytes, 0 is black and 1 is white;
    other numbers have no natural black and white, and are stretched over what is shown. Views of one kind have one scale.
    """
    first, second = ((v1,), (v2,)) if recipe.two_kinds else ((v1, v2),) * 2
    return _of_view(recipe, 0, v1, _by_channel(first), stored[0]), _of_view(recipe, 1, v2, _by_channel(second), stored[1])


def of_images(images: Float[Tensor, "B C H W"], stored: Pixels | None) -> Tiles:
    """Undisturbed images of one channel or three in the same way."""
    return _of_colours(images[:, None], _by_channel((images,)), stored)


def grey(channels: Float[Tensor, "B C H W"], ranges: Sequence[Range]) -> UInt8[Tensor, "B C 3 H W"]:
    """Each channel as an image of its own, from black to white over its range."""
    return _bytes(_between(channels, ranges))[:, :, None].expand(-1, -1, 3, -1, -1)


def central_ranges(channels: Float[Tensor, "B C H W"]) -> list[Range]:
    """Between which the central share of each channel's numbers lies."""
    return [_central_range(numbers) for numbers in _by_channel((channels,))]


def range_in_words(low: float, high: float) -> str:
    """Three digits of each end."""
    return f"{in_digits(low)} to {in_digits(high)}"


def channel_names(recipe: Family, which: int, channels: int) -> tuple[str, ...]:
    """What the channels of view 0 or 1 are called."""
    if isinstance(recipe, ColorSplit):
        names = CHANNELS[recipe.space]
        return (names[recipe.first],) if which == 0 else (*names[: recipe.first], *names[recipe.first + 1 :])
    if isinstance(recipe, Learned):
        names = LEARNED if isinstance(recipe, Found) else CHANNELS[recipe.base_space]
        return names[:1] if which == 0 else names[1:]
    if channels == 3:
        return ("red", "green", "blue")
    return ("grey",) if channels == 1 else tuple(f"channel {channel}" for channel in range(1, channels + 1))


def _of_view(
    recipe: Family, which: int, view: Float[Tensor, "B *T C H W"], numbers: Float[Tensor, "C N"], stored: Pixels | None
) -> Tiles:
    C = len(numbers)
    frames = view if view.ndim == 5 else view[:, None]
    if C == 2 or (isinstance(recipe, ColorSplit | Frequency | Learned) and C <= 3):
        return _channels(frames[:, 0], numbers, channel_names(recipe, which, C))
    if C > 3:
        return _bands(frames, numbers, TRUE_COLOUR.get(C, (0, 1, 2)))
    return _of_colours(frames, numbers, stored)


def _of_colours(frames: Float[Tensor, "B T C H W"], numbers: Float[Tensor, "C N"], stored: Pixels | None) -> Tiles:
    if stored is not None and stored.stored.dtype != torch.uint8:
        return _stretched(frames, numbers, stored)
    return _as_they_are(frames, numbers)


def _channels(view: Float[Tensor, "B C H W"], numbers: Float[Tensor, "C N"], names: tuple[str, ...]) -> Tiles:
    """Each channel as an image of its own."""
    ranges = [_central_range(channel) for channel in numbers]
    told = ", ".join(f"{name} {range_in_words(*ends)}".removeprefix("grey ") for name, ends in zip(names, ranges, strict=True))
    return Tiles(
        grey(view, ranges),
        names=() if names == ("grey",) else names,
        rendering=f"black to white is {told} ({SHARE})",
    )


def _bands(frames: Float[Tensor, "B T C H W"], numbers: Float[Tensor, "C N"], colours: tuple[int, int, int]) -> Tiles:
    """Three of many bands as red, green and blue."""
    ranges = [_central_range(numbers[band]) for band in colours]
    bands = ", ".join(str(band + 1) for band in colours)
    return Tiles(
        _bytes(_between(frames[:, :, list(colours)], ranges)),
        rendering=f"bands {bands} of {len(numbers)} as red, green, blue, each stretched ({SHARE})",
    )


def _stretched(frames: Float[Tensor, "B T C H W"], numbers: Float[Tensor, "C N"], stored: Pixels) -> Tiles:
    """The central numbers of those shown from black to white, told as they are stored."""
    low, high = _central_range(numbers.flatten())
    zero, one = stored.range
    told = range_in_words(zero + low * (one - zero), zero + high * (one - zero))
    dtype = str(stored.stored.dtype).removeprefix("torch.")
    return Tiles(
        _colours(_between(frames, [(low, high)])),
        rendering=f"black to white is {told} of the stored {dtype} ({SHARE})",
    )


def _as_they_are(frames: Float[Tensor, "B T C H W"], numbers: Float[Tensor, "C N"]) -> Tiles:
    low, high = numbers.min().item(), numbers.max().item()
    clipped = low < -HALF_A_LEVEL or high > 1 + HALF_A_LEVEL
    return Tiles(
        _colours(frames), rendering=f"numbers from {range_in_words(low, high)}, shown clipped to 0 to 1" if clipped else ""
    )


def _by_channel(views: Sequence[Tensor]) -> Float[Tensor, "C N"]:
    return torch.cat([view.movedim(-3, 0).flatten(1) for view in views], dim=1)


def _colours(frames: Float[Tensor, "B T C H W"]) -> UInt8[Tensor, "B T 3 H W"]:
    return _bytes(frames).expand(-1, -1, 3, -1, -1)


def _between(numbers: Float[Tensor, "... C H W"], ranges: Sequence[Range]) -> Float[Tensor, "... C H W"]:
    """0 at the low end of each channel's range and 1 at its high end."""
    low, high = numbers.new_tensor(ranges)[:, :, None, None].unbind(dim=1)
    scaled: Tensor = (numbers - low) / (high - low)
    return scaled


def _central_range(numbers: Float[Tensor, " N"]) -> Range:
    """Between which the central share of the numbers lies; where they are nearly all alike, all of them."""
    ordered = numbers[:: max(1, len(numbers) // ENOUGH)].sort().values
    outside = round((1 - CENTRAL) / 2 * (len(ordered) - 1))
    low, high = ordered[outside].item(), ordered[-1 - outside].item()
    if low == high:
        low, high = ordered[0].item(), ordered[-1].item()
    return (low, high) if low < high else (low, low + 1)


def _bytes(numbers: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    return numbers.clamp(0, 1).mul(255).round().to(torch.uint8)
