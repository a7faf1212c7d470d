"""A picture of view pairs, in the pixels that the encoder sees, with what was drawn for each."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from pydantic import JsonValue
from torch import Generator

from ml import datasets, page, spec, tiles, views
from ml.datasets import Data, Library, Split
from ml.datasets.split import PairSplit, Pixels
from ml.learned_views import Found
from ml.methods import jigsaw
from ml.page import CAPTION, GAP, GUTTER, HEAD, WIDEST, Letters
from ml.tiles import Tiles
from ml.views import drawn

LEAST = (112, 136)  # widths of v1 and v2, so that there is room for captions; what v2 does not need is gutter
MOST_PARAMETERS = 6  # that are all told
MAIN = ("crop_scale_min", "jitter", "mode", "flow", "base_space")  # told in any case

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
    told = f"{len(items)} pairs of training items of {data.facts.name}, seed {seed}"
    lines = [told, *_beginning(recipe), *_renderings(first, second)]
    heads = ("v1", "v2: in nine pieces") if in_pieces else _heads(recipe)
    return _page(spec.in_words(parameters(recipe)), lines, heads, (first, second), captions)


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
        case spec.ColorSplit() | spec.Learned():
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


def _beginning(recipe: spec.Views) -> Iterator[str]:
    if isinstance(recipe, spec.Learned) and not isinstance(recipe, Found):
        yield f"nothing is learned yet: these are the channels of {recipe.base_space}, the base space where learning begins"


def _renderings(first: Tiles, second: Tiles) -> Iterator[str]:
    if first.rendering and first.rendering == second.rendering:
        yield f"v1, v2: {first.rendering}"
        return
    for name, view in (("v1", first), ("v2", second)):
        if view.rendering:
            yield f"{name}: {view.rendering}"


def _page(
    title: str, text: Sequence[str], heads: tuple[str, str], shown: tuple[Tiles, Tiles], captions: Sequence[Captions]
) -> bytes:
    """Pairs in rows, with words above and under them."""
    scales = page.scales([view.images.shape[1:] for view in shown])
    strips = [
        [page.strip(view.images[sample], view.names, scale) for view, scale in zip(shown, scales, strict=True)]
        for sample in range(len(captions))
    ]
    wide = [max(strip.width, least) for strip, least in zip(strips[0], LEAST, strict=True)]

    def row_of(v1: Image.Image, v2: Image.Image) -> Image.Image:
        return page.beside([page.padded(v1, wide[0]), page.padded(v2, wide[1])], GAP)

    def written(letters: Letters, first: Sequence[str], second: Sequence[str]) -> Image.Image:
        return row_of(letters.written(first, wide[0]), letters.written(second, wide[1]))

    pairs = [
        page.stacked([row_of(*strip), written(CAPTION, of_v1, of_v2), CAPTION.written(["; ".join(of_pair)], sum(wide))], 2)
        for strip, (of_pair, of_v1, of_v2) in zip(strips, captions, strict=True)
    ]
    columns = _columns(len(pairs), pairs[0].width)
    rows = [page.beside(pairs[start : start + columns], GUTTER) for start in range(0, len(pairs), columns)]
    rows[0] = page.stacked([page.beside([written(HEAD, heads[:1], heads[1:])] * columns, GUTTER), rows[0]])
    if scales[0] < 1:
        text = [*text, f"shown at {scales[0]} of their size"]
    return page.finished(title, text, rows)


def _columns(pairs: int, width: int) -> int:
    """As many pairs in a row as there is room for; fewer where that fills all rows."""
    most = max(1, min(pairs, (WIDEST + GUTTER) // (width + GUTTER)))
    full = [columns for columns in range(math.ceil(most / 2), most + 1) if pairs % columns == 0]
    return max(full, default=most)
