"""A picture of view pairs, in the pixels that the encoder sees, with what was drawn for each."""

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from pydantic import JsonValue
from torch import Generator

from ml import datasets, spec, tiles, views
from ml.datasets import Data, Library, Split
from ml.datasets.split import PairSplit, Pixels
from ml.methods import jigsaw
from ml.tiles import Tiles
from ml.views import drawn

WIDEST = 1400  # of a picture, in pixels
NARROWEST = 560  # so that there is room for words
TILE = 128  # side that an image is enlarged to, about
LEAST = (112, 136)  # widths of v1 and v2, so that there is room for captions; what v2 does not need is gutter
SEAM = 3  # between the images of a view
GAP = 10  # between v1 and v2
GUTTER = 32  # between pairs
MARGIN = 20
INK, QUIET = "#222222", "#666666"
MOST_PARAMETERS = 6  # that are all told
MAIN = ("crop_scale_min", "jitter")  # told in any case

Captions = tuple[list[str], list[str], list[str]]


def preview(
    dataset: spec.Dataset,
    recipe: spec.Views,
    library: Library,
    pairs: int = 8,
    seed: int = 0,
    method: spec.Method | None = None,
) -> bytes:
    """A PNG of v1 and v2 side by side for a few training items. Raises DatasetMissing or DatasetInvalid."""
    data = datasets.load(dataset, library, torch.device("cpu"), as_photographs=isinstance(recipe, spec.Patches))
    return of_data(data, recipe, pairs, seed, method)


def of_data(data: Data, recipe: spec.Views, pairs: int, seed: int, method: spec.Method | None = None) -> bytes:
    """The same for a dataset that is already loaded; of a method that cuts v2 up, as it sees it."""
    generator = Generator(data.device).manual_seed(seed)
    items = torch.randperm(len(data.train), generator=generator, device=data.device)[:pairs]
    with drawn.recording() as record:
        v1, v2 = views.make(recipe, data.train.take(items), generator)
    in_pieces = isinstance(method, spec.PIRL)
    if in_pieces:
        v2 = jigsaw.laid_out(jigsaw.cut(v2, generator))
    first, second = tiles.of_views(recipe, v1.cpu(), v2.cpu(), _stored(data.train))
    captions = [record.captions(sample) for sample in range(len(items))]
    lines = [f"{len(items)} pairs of training items of {data.facts.name}, seed {seed}", *_renderings(first, second)]
    file = io.BytesIO()
    heads = ("v1", "v2: in nine pieces") if in_pieces else _heads(recipe)
    _page(spec.in_words(parameters(recipe)), lines, heads, (first, second), captions).save(file, "PNG")
    return file.getvalue()


def parameters(recipe: spec.Part) -> dict[str, JsonValue]:
    """The kind and the parameters of a recipe; of those with many, the main ones and what is not as it is by default."""
    fields = {name: value for name, value in recipe if value is not None and value is not False}
    if len(fields) > MOST_PARAMETERS:
        usual = {name: field.default for name, field in type(recipe).model_fields.items()}
        fields = {name: value for name, value in fields.items() if name in MAIN or value != usual[name]}
    kind_first = sorted(fields, key=lambda name: name != "kind")
    return {name: _json(fields[name]) for name in kind_first}


def _json(value: Any) -> JsonValue:
    if isinstance(value, spec.Part):
        return parameters(value)
    return list(value) if isinstance(value, tuple) else value


def _heads(recipe: spec.Views) -> tuple[str, str]:
    """What stands over v1 and over v2: their names, and what they are where they are not alike."""
    match recipe:
        case spec.ColorSplit():
            first, second = (", ".join(tiles.channel_names(recipe, which, 2)) for which in (0, 1))
        case spec.Frequency():
            first, second = "blurred", "the rest"
        case spec.Factors():
            first, second = "past frames", "later image"
        case spec.Temporal():
            first, second = "", f"{recipe.gap} frames later"
        case spec.Patches():
            first, second = "", f"+{recipe.distance}, +{recipe.distance} px"
        case spec.PatchGrid():
            first, second = "", "in a row below"
        case _:
            first, second = "", ""
    return f"v1: {first}".removesuffix(": "), f"v2: {second}".removesuffix(": ")


def _stored(split: Split) -> tuple[Pixels | None, Pixels | None]:
    """The pixels from which v1 and v2 are made; None where the items are drawn."""
    if isinstance(split, PairSplit):
        return split.first, split.second
    pixels: Pixels | None = getattr(split, "pixels", None)
    return pixels, pixels


def _renderings(first: Tiles, second: Tiles) -> Iterator[str]:
    if first.rendering and first.rendering == second.rendering:
        yield f"v1, v2: {first.rendering}"
        return
    for name, view in (("v1", first), ("v2", second)):
        if view.rendering:
            yield f"{name}: {view.rendering}"


# The page -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Letters:
    """Letters of a size and a colour; the font that Pillow brings along has no Greek, and no dash but the hyphen."""

    size: int
    colour: str

    def written(self, texts: Iterable[str], width: int) -> Image.Image:
        """Each text on lines of its own, no longer than `width` pixels if its words allow that."""
        font = ImageFont.load_default(self.size)
        assert isinstance(font, ImageFont.FreeTypeFont)  # as long as Pillow is built with FreeType, as its wheels are
        lines = [line for text in texts for line in _wrapped(text, width, font)]
        leading = self.size + 5
        block = Image.new("RGB", (math.ceil(max(map(font.getlength, lines), default=0)), leading * len(lines)), "white")
        pen = ImageDraw.Draw(block)
        for number, line in enumerate(lines):
            pen.text((0, number * leading), line, fill=self.colour, font=font)
        return block


TITLE, TEXT = _Letters(18, INK), _Letters(13, QUIET)
HEAD, NAME, CAPTION = _Letters(14, INK), _Letters(12, INK), _Letters(12, QUIET)


def _page(
    title: str, text: Sequence[str], heads: tuple[str, str], shown: tuple[Tiles, Tiles], captions: Sequence[Captions]
) -> Image.Image:
    """Pairs in rows, with words above and under them."""
    scales = _scales(shown)
    strips = [[_strip(view, sample, scale) for view, scale in zip(shown, scales, strict=True)] for sample in range(len(captions))]
    wide = [max(strip.width, least) for strip, least in zip(strips[0], LEAST, strict=True)]

    def row_of(v1: Image.Image, v2: Image.Image) -> Image.Image:
        return _beside([_padded(v1, wide[0]), _padded(v2, wide[1])], GAP)

    def written(letters: _Letters, first: Sequence[str], second: Sequence[str]) -> Image.Image:
        return row_of(letters.written(first, wide[0]), letters.written(second, wide[1]))

    pairs = [
        _stacked([row_of(*strip), written(CAPTION, of_v1, of_v2), CAPTION.written(["; ".join(of_pair)], sum(wide))], 2)
        for strip, (of_pair, of_v1, of_v2) in zip(strips, captions, strict=True)
    ]
    columns = _columns(len(pairs), pairs[0].width)
    rows = [_beside(pairs[start : start + columns], GUTTER) for start in range(0, len(pairs), columns)]
    rows[0] = _stacked([_beside([written(HEAD, heads[:1], heads[1:])] * columns, GUTTER), rows[0]])
    width = max(rows[0].width, NARROWEST)
    if scales[0] < 1:
        text = [*text, f"shown at {scales[0]} of their size"]
    over = _stacked([TITLE.written([title], width), TEXT.written(text, width)])
    page = _stacked([over, *rows], GUTTER // 2)
    return ImageOps.expand(_padded(page, width), MARGIN, "white")


def _scales(shown: tuple[Tiles, Tiles]) -> list[Fraction]:
    """By how much v1's and v2's images are enlarged: whole numbers, or one over a whole number where even 1 is too wide."""

    def width(scales: Sequence[int]) -> int:
        shapes = [view.images.shape for view in shown]
        return sum(shape[1] * (scale * shape[-1] + SEAM) for shape, scale in zip(shapes, scales, strict=True)) + GAP

    for side in range(TILE, 0, -1):
        scales = [max(1, side // max(view.images.shape[-2:])) for view in shown]
        if width(scales) <= WIDEST:
            return [Fraction(scale) for scale in scales]
    return [Fraction(1, math.ceil(width((1, 1)) / WIDEST))] * 2


def _columns(pairs: int, width: int) -> int:
    """As many pairs in a row as there is room for; fewer where that fills all rows."""
    most = max(1, min(pairs, (WIDEST + GUTTER) // (width + GUTTER)))
    full = [columns for columns in range(math.ceil(most / 2), most + 1) if pairs % columns == 0]
    return max(full, default=most)


def _strip(view: Tiles, sample: int, scale: Fraction) -> Image.Image:
    """The images of a view side by side, each over its name."""
    images = [Image.fromarray(tile.permute(1, 2, 0).contiguous().numpy()) for tile in view.images[sample]]
    if scale < 1:
        images = [image.reduce(scale.denominator) for image in images]
    else:
        images = [ImageOps.scale(image, scale.numerator, Image.Resampling.NEAREST) for image in images]
    names = view.names or ("",) * len(images)
    named = [[image, NAME.written([name], image.width)] for image, name in zip(images, names, strict=True)]
    return _beside([_stacked(part, 2) for part in named], SEAM)


def _stacked(parts: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    """Under each other; what is empty takes no room."""
    parts = [part for part in parts if part.height]
    whole = Image.new("RGB", (max(part.width for part in parts), sum(part.height + gap for part in parts) - gap), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height + gap
    return whole


def _beside(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    whole = Image.new("RGB", (sum(part.width + gap for part in parts) - gap, max(part.height for part in parts)), "white")
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + gap
    return whole


def _padded(part: Image.Image, width: int) -> Image.Image:
    """At least so wide, with white to the right."""
    whole = Image.new("RGB", (max(width, part.width), part.height), "white")
    whole.paste(part)
    return whole


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
