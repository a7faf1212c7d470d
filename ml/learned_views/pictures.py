"""Pictures of a learned colour space: what it makes of images, and of all the colours there are."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageColor, ImageOps
from torch import Generator, Tensor

from ml import page, preview, spec, tiles
from ml.datasets import Data
from ml.learned_views import Found
from ml.page import CAPTION, GAP, HEAD, NAME, SEAM, Letters
from ml.tiles import LEARNED, Range
from ml.views.color import CHANNELS, to_color_space

SHOWN = 5  # slices of the cube of all colours
EVERY = 4  # of the slices that the range over the cube is known from, one is shown
SIDE = 200  # of a slice, in pixels
LINE, THICKNESS = "#e8590c", 1.2  # of the level lines, in pixels
MOST_LINES = 16
STEPS = (1, 2, 5, 10)  # between level lines, times a power of ten
FRAME = "#cccccc"
EMPTY = Image.new("RGB", (0, 0))


def channels(recipe: Found, data: Data, items: int, seed: int) -> bytes:
    """A PNG with a training item in each row: the image, and its channels in RGB, in YDbDr and in the learned space."""
    generator = Generator(data.device).manual_seed(seed)
    chosen = torch.randperm(len(data.train), generator=generator, device=data.device)[:items]
    images = data.train.take(chosen)
    spaces = (
        ("RGB", CHANNELS["rgb"], images),
        ("YDbDr", CHANNELS["ydbdr"], to_color_space(images, "ydbdr")),
        ("learned", LEARNED, recipe.channels(images)),
    )
    strips = [tiles.of_images(images.cpu(), getattr(data.train, "pixels", None)).images]
    words: list[tuple[Sequence[str], ...]] = [(["image"], [""], [""])]  # over each strip
    for space, names, planes in spaces:
        ranges = tiles.central_ranges(planes.cpu())
        strips.append(tiles.grey(planes.cpu(), ranges))
        words.append(([space, "", ""], names, [tiles.range_in_words(*ends) for ends in ranges]))
    scales = page.scales([strip.shape[1:] for strip in strips])
    wide = math.ceil(images.shape[-1] * scales[0])
    heads = [
        [_over(letters, texts, wide) for texts in line]
        for letters, line in zip((HEAD, NAME, CAPTION), zip(*words, strict=True), strict=True)
    ]
    rows = [
        [page.strip(strip[item], (), scale) for strip, scale in zip(strips, scales, strict=True)] for item in range(len(images))
    ]
    text = [
        f"{len(images)} training items of {data.facts.name}, seed {seed}",
        f"black to white is the range under a channel's name ({tiles.SHARE} of what is shown)",
        *([f"shown at {scales[0]} of their size"] if scales[0] < 1 else []),
    ]
    return page.finished(spec.in_words(preview.parameters(recipe)), text, [page.table([*heads, *rows], GAP, SEAM)])


def colour_space(recipe: Found) -> bytes:
    """A PNG of the cube of all colours in slices of one blue each, and of the channels that the learned map gives to them."""
    cube = _cube()
    device = next(recipe.channels.parameters()).device
    values = torch.cat([recipe.channels(colours[None].to(device)).cpu() for colours in cube])
    columns = [[HEAD.written(["colours"], SIDE), *_framed(_bytes(cube[::EVERY])), _across("red")]]
    for name, channel in zip(LEARNED, values.unbind(dim=1), strict=True):
        ends = channel.min().item(), channel.max().item()
        step = _step(*ends)
        scale = torch.linspace(*ends, SIDE).expand(1, 12, SIDE)
        told = CAPTION.written([f"{tiles.range_in_words(*ends)}, a line every {step:g}"], SIDE)
        head = page.stacked([HEAD.written([name], SIDE), *_framed(_painted(scale, ends, step)), told], 2)
        columns.append([head, *_framed(_painted(channel[::EVERY], ends, step)), _across("red")])
    blues = [NAME.written([f"blue {blue:g}"], SIDE) for blue in torch.linspace(0, 1, SHOWN).tolist()]
    rows = list(zip([EMPTY, *blues, EMPTY], [EMPTY, *[_upwards("green")] * SHOWN, EMPTY], *columns, strict=True))
    text = [
        "all colours, in slices of one blue each, and the channels that the learned map gives to them",
        "black to white is a channel's range over all colours, as its scale shows",
    ]
    return page.finished(spec.in_words(preview.parameters(recipe)), text, [page.table(rows, GAP, GAP)])


def _over(letters: Letters, texts: Sequence[str], wide: int) -> Image.Image:
    """Words over each image of a strip."""
    return page.beside([page.padded(letters.written([text], wide), wide) for text in texts], SEAM)


def _cube() -> Float[Tensor, "slices 3 H W"]:
    """Red grows to the right, green upwards, and blue from slice to slice."""
    side = torch.linspace(0, 1, SIDE)
    blues = torch.linspace(0, 1, (SHOWN - 1) * EVERY + 1)
    blue, green, red = torch.meshgrid(blues, side.flip(0), side, indexing="ij")
    return torch.stack((red, green, blue), dim=1)


def _step(low: float, high: float) -> float:
    """A round number that divides the range by so many lines at most."""
    least = (high - low) / MOST_LINES
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in STEPS if step * power >= least)


def _painted(values: Float[Tensor, "B H W"], ends: Range, step: float) -> UInt8[Tensor, "B 3 H W"]:
    """From black at one end to white at the other, with a line where the values pass a multiple of `step` between them."""
    low, high = ends
    grey = ((values - low) / (high - low))[:, None]
    levels = step * torch.arange(math.floor(low / step) + 1, math.ceil(high / step))
    off = (values[..., None] - levels).abs().amin(dim=-1)
    slope = torch.hypot(*torch.gradient(values, dim=(1, 2)))  # to the next pixel
    distance = torch.where(slope > 1e-6 * step, off / slope, math.inf)  # to the nearest line in pixels; none crosses a plateau
    line = (THICKNESS / 2 + 0.5 - distance).clamp(0, 1)[:, None]
    colour = torch.tensor(ImageColor.getrgb(LINE))[:, None, None] / 255
    return _bytes(grey + line * (colour - grey))


def _across(name: str) -> Image.Image:
    """What stands under a slice: 0 and 1 under its ends, with the name between."""
    zero, named, one = (CAPTION.written([text], SIDE) for text in ("0", name, "1"))
    axis = Image.new("RGB", (SIDE, named.height), "white")
    for part, left in ((zero, 0), (named, (SIDE - named.width) // 2), (one, SIDE - one.width)):
        axis.paste(part, (left, 0))
    return axis


def _upwards(name: str) -> Image.Image:
    """What stands to the left of a slice: the same from the bottom to the top."""
    zero, named, one = (CAPTION.written([text], SIDE) for text in ("0", name, "1"))
    named = named.rotate(90, expand=True)
    axis = Image.new("RGB", (named.width, SIDE), "white")
    for part, top in ((one, 0), (named, (SIDE - named.height) // 2), (zero, SIDE - zero.height)):
        axis.paste(part, (axis.width - part.width, top))
    return axis


def _framed(images: UInt8[Tensor, "B 3 H W"]) -> list[Image.Image]:
    """With a thin line around, since white would be lost on the page."""
    return [ImageOps.expand(page.picture(image), 1, FRAME) for image in images]


def _bytes(numbers: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    return numbers.mul(255).round().to(torch.uint8)
