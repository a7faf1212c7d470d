import io
import re
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from ml import page, preview, spec, tiles, views
from ml.datasets import Data, Library
from ml.datasets.clips import ClipSplit
from ml.datasets.photographs import of_images
from ml.datasets.raw import BYTES
from ml.datasets.scenes import SceneSplit
from ml.datasets.split import ImageSplit, PairSplit, Pixels, Split
from ml.learned_views import Found
from ml.learned_views.flow import Flow
from ml.views import drawn
from ml.views.color import to_color_space

CPU = torch.device("cpu")
FAMILIES = (*typing.get_args(typing.get_args(spec.Views)[0]), Found)
SMALL: dict[type[spec.Family], dict[str, object]] = {
    spec.Patches: {"size": 8, "distance": 4},
    spec.PatchGrid: {"size": 8, "stride": 4},
    spec.Temporal: {"gap": 2},
}  # where the defaults are too large for small items


def recipe_of(family: type[spec.Family], **parameters: object) -> spec.Views:
    return family.model_validate({"kind": typing.get_args(family.model_fields["kind"].annotation)[0], **parameters})


def found(**parameters: object) -> Found:
    """Views that were learned, as it were: by a map that is not the identity."""
    asked = spec.Learned.model_validate({"kind": "learned", **parameters})
    torch.manual_seed(0)
    flow = Flow(asked)
    for weights in flow.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    return Found.of(asked, flow)


def shown_for(family: type[spec.Family]) -> spec.Views:
    return found() if family is Found else recipe_of(family, **SMALL.get(family, {}))


def stored(*shape: int, dtype: torch.dtype = torch.uint8, value_range: tuple[float, float] = BYTES) -> Pixels:
    numbers = torch.randint(0, 256, shape, generator=Generator().manual_seed(1))
    return Pixels(numbers.to(dtype), value_range, CPU)


def split_for(family: type[spec.Family], items: int = 12) -> Split:
    images = stored(items, 3, 16, 16)
    if family is spec.Patches:
        return of_images(images.stored, BYTES, CPU)
    match family.takes[0]:
        case "clips":
            return ClipSplit(stored(items, 6, 3, 16, 16), {})
        case "paired":
            return PairSplit(images, stored(items, 1, 12, 20), {})
        case "scenes":
            labels = torch.arange(items) % 3
            return SceneSplit(stored(items, 28, 28).stored, labels, stored(items, 3, 32, 32).stored, labels, seed=0)
    return ImageSplit(images, {})


def data_of(split: Split) -> Data:
    facts = spec.DatasetFacts(name="small", train=len(split), test=8, channels=3, image_size=16)
    return Data(facts, split, split, "", CPU)


def pixels_of(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)))


def shows(picture: NDArray[np.uint8], tile: Tensor) -> bool:
    """Whether the picture holds the tile [3 H W] somewhere, each of its pixels as a square of a whole number of pixels."""
    wanted = tile.permute(1, 2, 0).numpy()
    for scale in (max(1, page.TILE // max(wanted.shape)), 1):
        enlarged = wanted.repeat(scale, axis=0).repeat(scale, axis=1)
        height, width, _ = enlarged.shape
        rows, columns = 1 + picture.shape[0] - height, 1 + picture.shape[1] - width
        if min(rows, columns) > 0:
            alike = np.ones((rows, columns), dtype=bool)
            for down, across in ((0, 0), (height - 1, width - 1), (height // 2, width // 3), (height // 3, width // 2)):
                alike &= (picture[down : down + rows, across : across + columns] == enlarged[down, across]).all(axis=2)
            places = (picture[top : top + height, left : left + width] for top, left in np.argwhere(alike))
            if any(np.array_equal(place, enlarged) for place in places):
                return True
    return False


def tiles_of(recipe: spec.Views, split: Split, seed: int, pairs: int) -> tuple[tiles.Tiles, tiles.Tiles]:
    generator = Generator().manual_seed(seed)
    items = torch.randperm(len(split), generator=generator)[:pairs]
    v1, v2 = views.make(recipe, split.take(items), generator)
    pixels = (split.first, split.second) if isinstance(split, PairSplit) else (getattr(split, "pixels", None),) * 2
    return tiles.of_views(recipe, v1, v2, pixels)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
class TestEveryFamily:
    def test_shows_what_the_encoder_is_given_for_this_seed(self, family: type[spec.Family]) -> None:
        recipe, split = shown_for(family), split_for(family)
        picture = pixels_of(preview.of_data(data_of(split), recipe, pairs=2, seed=5))
        for view in tiles_of(recipe, split, seed=5, pairs=2):
            assert all(shows(picture, tile) for pair in view.images for tile in pair)

    def test_is_of_a_moderate_size_and_the_same_again(self, family: type[spec.Family]) -> None:
        recipe, split = shown_for(family), split_for(family)
        png = preview.of_data(data_of(split), recipe, pairs=8, seed=0)
        height, width, colours = pixels_of(png).shape
        assert (600 <= width <= 1440, height <= 2000, colours) == (True, True, 3)
        assert png == preview.of_data(data_of(split), recipe, pairs=8, seed=0)


def test_what_was_drawn_stands_under_the_views_and_the_recipe_over_all() -> None:
    recipe, split = recipe_of(spec.Patches, size=8, distance=4), split_for(spec.Patches)
    generator = Generator().manual_seed(2)
    items = split.take(torch.randperm(len(split), generator=generator)[:3])
    with drawn.recording() as record:
        views.make(recipe, items, generator)
    captions = [caption for sample in range(3) for notes in record.captions(sample) for caption in notes]
    assert len(captions) == 6 and all(caption.startswith("left, top ") for caption in captions)
    picture = pixels_of(preview.of_data(data_of(split), recipe, pairs=3, seed=2))
    title = page.TITLE.written(["patches, size 8, distance 4"], 560)
    text = page.TEXT.written(["3 pairs of training items of small, seed 2"], 560)
    for words in (title, text, *(page.CAPTION.written([caption], 136) for caption in captions)):
        assert shows(picture, torch.from_numpy(np.array(words)).permute(2, 0, 1))


PLACES = {"left, top": 1.0, "left, top, width, height": 1.0, "column, row": 4.0}  # in pixels


@pytest.mark.parametrize(
    "recipe",
    [
        recipe_of(spec.Crop, area=0.1),
        recipe_of(spec.Augment, crop_scale_min=0.1, jitter=0, grayscale_p=0, flip_p=0),
        recipe_of(spec.Patches, size=8, distance=4),
        recipe_of(spec.PatchGrid, size=8, stride=4),
    ],
    ids=lambda recipe: str(recipe.kind),
)
def test_places_are_told_across_then_down(recipe: spec.Views) -> None:
    rows, columns = torch.meshgrid(torch.arange(20), torch.arange(32), indexing="ij")
    images = torch.stack((columns, rows)).expand(16, 2, 20, 32)  # each pixel says where it stands
    items: Any = images / 255
    if recipe.kind == "patches":
        items = of_images(images[:, :, :, :20].byte(), BYTES, CPU).take(torch.arange(16))
    with drawn.recording() as record:
        both = views.make(recipe, items, Generator().manual_seed(3))
    for sample in range(16):
        for view, (caption,) in zip(both, record.captions(sample)[1:], strict=True):
            (name,) = [name for name in PLACES if re.match(rf"{name} [0-9.]", caption)]
            across, down, *size = (float(number) * PLACES[name] for number in re.findall(r"[0-9.e+-]*[0-9]", caption))
            width, height = size or ((32 * 0.1**0.5, 20 * 0.1**0.5) if recipe.kind == "crop" else (8, 8))
            centre = torch.tensor((across + (width - 1) / 2, down + (height - 1) / 2))
            torch.testing.assert_close(255 * view[sample].mean(dim=(1, 2)), centre, atol=0.6, rtol=0)


def test_a_cutout_lies_about_the_place_told() -> None:
    recipe = recipe_of(spec.Augment, crop_p=0, flip_p=0, jitter=0, grayscale_p=0, cutout_p=1, cutout_share=0.1)
    with drawn.recording() as record:
        v1, _ = views.make(recipe, torch.ones(16, 1, 12, 30), Generator().manual_seed(0))
    for sample in range(16):
        (caption,) = record.captions(sample)[1]
        x, y = map(int, re.fullmatch(r"cutout about x, y (\d+), (\d+) px", caption).groups())
        assert v1[sample, 0, y, x] == 0


def test_of_moving_digits_the_later_place_is_told() -> None:
    labels = torch.arange(8) % 2
    digits, black = torch.full((8, 28, 28), 255, dtype=torch.uint8), torch.zeros(8, 3, 64, 64, dtype=torch.uint8)
    split = SceneSplit(digits, labels, black, labels, seed=0)
    with drawn.recording() as record:
        _, v2 = views.make(recipe_of(spec.Factors), split.take(torch.arange(8)), Generator().manual_seed(0))
    for sample in range(8):
        (caption,) = [words for words in record.captions(sample)[2] if words.startswith("later position x, y ")]
        x, y = map(float, re.findall(r"[0-9.]+", caption))
        rows, columns = v2[sample, 0].nonzero().double().mean(dim=0) + 0.5
        assert (columns.item(), rows.item()) == pytest.approx((x, y), abs=0.6)


def test_nothing_is_recorded_unless_somebody_does() -> None:
    assert not drawn.is_recording()
    drawn.note("noise", torch.ones(3))
    with drawn.recording() as record:
        assert drawn.is_recording()
    assert record.notes == [] and not drawn.is_recording()


def test_undisturbed_images_are_shown_as_they_are() -> None:
    recipe, split = recipe_of(spec.Noise, sigma=0), split_for(spec.Noise, items=4)
    picture = pixels_of(preview.of_data(data_of(split), recipe, pairs=4, seed=0))
    assert all(shows(picture, image) for image in split.pixels.stored)


@pytest.mark.parametrize(("size", "kind"), [(8, "crop"), (100, "crop"), (512, "crop"), (512, "frequency")])
def test_images_of_any_size_make_a_picture(size: int, kind: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "small.npz", x=np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8))
    dataset = spec.Dataset(name="small", image_size=size)
    recipe = spec.ExperimentSpec.model_validate({"dataset": dataset, "views": {"kind": kind}}).views
    _, width, _ = pixels_of(preview.preview(dataset, recipe, Library(*(tmp_path,) * 3), pairs=2)).shape
    assert 600 <= width <= 1440


def test_what_is_too_wide_is_reduced_by_a_whole_number() -> None:
    split = ImageSplit(Pixels(torch.full((8, 3, 512, 512), 100, dtype=torch.uint8), BYTES, CPU), {})
    picture = pixels_of(preview.of_data(data_of(split), recipe_of(spec.ColorSplit, space="rgb"), pairs=1, seed=0))
    assert picture.shape[1] == 2 * 20 + 3 * 256 + 3 + 10


def test_fewer_items_make_fewer_pairs() -> None:
    picture = pixels_of(preview.of_data(data_of(split_for(spec.Noise, items=1)), recipe_of(spec.Noise), pairs=8, seed=0))
    assert picture.shape[1] == 560 + 2 * 20


def test_a_split_shows_each_channel_with_its_name_over_its_range() -> None:
    ramp = torch.linspace(0, 1, 101).expand(1, 3, 4, 101)
    recipe = recipe_of(spec.ColorSplit, space="ycbcr", first=2)
    v1, v2 = views.make(recipe, ramp, Generator())
    first, second = tiles.of_views(recipe, v1, v2, (None, None))
    assert (first.names, second.names) == (("Cr",), ("Y", "Cb"))
    # greys run from Y = 16 to 235 without any chroma; half a per cent of the numbers lies outside at either end
    assert second.rendering.startswith("black to white is Y 16 to 235, Cb 128 to ")
    luma = second.images[0, 0, 0, 0]
    assert (luma[0], luma[-1]) == (0, 255)
    assert (luma.diff() >= 0).all()
    assert second.images[0, 0].unique(dim=0).shape[0] == 1  # grey


def holds(picture: NDArray[np.uint8], letters: page.Letters, words: str) -> bool:
    return shows(picture, torch.from_numpy(np.array(letters.written([words], page.WIDEST))).permute(2, 0, 1))


def test_learned_channels_are_shown_with_their_names_over_their_ranges() -> None:
    recipe, split = found(), split_for(Found)
    v1, v2 = views.make(recipe, split.take(torch.arange(12)), Generator())
    first, second = tiles.of_views(recipe, v1, v2, (None, None))
    assert (first.names, second.names) == (("g1",), ("g2", "g3"))
    low, high = recipe.channels(split.take(torch.arange(12)))[:, 0].flatten().quantile(torch.tensor([0.005, 0.995])).tolist()
    told = re.fullmatch(r"black to white is g1 (\S+) to (\S+) \(central 99 %\)", first.rendering)
    assert tuple(map(float, told.groups())) == pytest.approx((low, high), abs=0.02)
    picture = pixels_of(preview.of_data(data_of(split), recipe, pairs=2, seed=0))
    assert holds(picture, page.HEAD, "v1: g1") and holds(picture, page.HEAD, "v2: g2, g3")
    assert holds(picture, page.TITLE, "learned, mode semi_supervised, flow volume_preserving, base_space ydbdr")


@pytest.mark.parametrize(("space", "heads"), [("rgb", ("red", "green, blue")), ("ydbdr", ("Y", "Db, Dr"))])
def test_before_anything_is_learned_the_base_space_is_shown_and_named(space: str, heads: tuple[str, str]) -> None:
    said = f"nothing is learned yet: these are the channels of {space}, the base space where learning begins"
    data = data_of(split_for(spec.Learned))
    picture = pixels_of(preview.of_data(data, recipe_of(spec.Learned, base_space=space), pairs=2, seed=0))
    assert holds(picture, page.TEXT, said)
    assert holds(picture, page.HEAD, f"v1: {heads[0]}") and holds(picture, page.HEAD, f"v2: {heads[1]}")
    learned = pixels_of(preview.of_data(data, found(base_space=space), pairs=2, seed=0))
    assert not holds(learned, page.TEXT, said)


def test_channels_of_a_split_are_scaled_over_all_pairs_alike() -> None:
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    recipe = recipe_of(spec.ColorSplit, space="lab")
    planes = to_color_space(images, "lab")
    first, _ = tiles.of_views(recipe, planes[:, :1], planes[:, 1:], (None, None))
    assert first.rendering == "black to white is L 0 to 100 (central 99 %)"
    assert [image.unique().tolist() for image in first.images] == [[0], [255]]


def test_noise_is_clipped_and_says_so() -> None:
    v1, v2 = torch.full((2, 1, 4, 4), -0.5), torch.full((2, 1, 4, 4), 1.25)
    first, second = tiles.of_views(recipe_of(spec.Noise), v1, v2, (None, None))
    assert first.rendering == second.rendering == "numbers from -0.5 to 1.25, shown clipped to 0 to 1"
    assert (first.images.unique().tolist(), second.images.unique().tolist()) == ([0], [255])
    undisturbed, _ = tiles.of_views(recipe_of(spec.Noise), v1.clamp(0, 1), v2.clamp(0, 1), (None, None))
    assert undisturbed.rendering == ""


@pytest.mark.parametrize(("channels", "bands"), [(13, (4, 3, 2)), (4, (1, 2, 3))])
def test_of_many_bands_three_are_the_colours(channels: int, bands: tuple[int, int, int]) -> None:
    view = torch.arange(channels)[:, None, None] + torch.linspace(0, 0.5, 400).view(1, 1, 20, 20)
    first, _ = tiles.of_views(recipe_of(spec.Crop), view, view, (None, None))
    named = ", ".join(map(str, bands))
    assert first.rendering == f"bands {named} of {channels} as red, green, blue, each stretched (central 99 %)"
    assert first.images.shape == (1, 1, 3, 20, 20)
    assert first.images.amin(dim=(0, 1, 3, 4)).tolist() == [0] * 3 and first.images.amax(dim=(0, 1, 3, 4)).tolist() == [255] * 3


def test_two_channels_are_two_images() -> None:
    first, _ = tiles.of_views(recipe_of(spec.Crop), torch.rand(3, 2, 8, 8), torch.rand(3, 2, 8, 8), (None, None))
    assert first.names == ("channel 1", "channel 2")
    assert first.images.shape == (3, 2, 3, 8, 8)


@pytest.mark.parametrize(("dtype", "value_range"), [(torch.uint16, (0.0, 65_535.0)), (torch.float32, (-1000.0, 3095.0))])
def test_numbers_that_are_no_bytes_are_stretched_and_told_as_they_are_stored(
    dtype: torch.dtype, value_range: tuple[float, float]
) -> None:
    pixels = Pixels(torch.arange(100, 500).to(dtype).view(1, 1, 20, 20), value_range, CPU)
    view = pixels.take(torch.arange(1))
    first, _ = tiles.of_views(recipe_of(spec.Crop), view, view, (pixels, pixels))
    name = str(dtype).removeprefix("torch.")
    assert first.rendering == f"black to white is 102 to 497 of the stored {name} (central 99 %)"
    assert (first.images.min(), first.images.max()) == (0, 255)


def test_paired_views_are_shown_each_in_its_own_way() -> None:
    colours, depths = stored(4, 3, 16, 16), stored(4, 1, 8, 8, dtype=torch.float32)
    items = torch.arange(4)
    first, second = tiles.of_views(recipe_of(spec.Paired), colours.take(items), depths.take(items), (colours, depths))
    assert torch.equal(first.images[:, 0], colours.stored)
    assert first.rendering == "" and second.rendering.endswith("of the stored float32 (central 99 %)")


def test_a_clip_is_a_strip_of_its_frames() -> None:
    clip = torch.linspace(0, 1, 5).view(1, 5, 1, 1, 1).expand(2, 5, 3, 8, 8)
    first, second = tiles.of_views(recipe_of(spec.Factors), clip, clip[:, 0], (None, None))
    assert first.images[0, :, 0, 0, 0].tolist() == [0, 64, 128, 191, 255]
    assert (first.images.shape[1], second.images.shape[1]) == (5, 1)


def test_a_channel_without_contrast_is_black() -> None:
    first, _ = tiles.of_views(recipe_of(spec.Frequency), torch.full((2, 1, 8, 8), 0.3), torch.zeros(2, 1, 8, 8), (None, None))
    assert first.images.unique().tolist() == [0]


def test_the_title_names_the_main_parameters_and_what_is_unusual() -> None:
    def title(**recipe: object) -> str:
        views = spec.ExperimentSpec.model_validate({"dataset": {"name": "digits"}, "views": recipe}).views
        return spec.in_words(preview.parameters(views))

    assert title(kind="noise", sigma=0.4) == "noise, sigma 0.4"
    assert title(kind="paired") == "paired"
    assert title(kind="augment") == "augment, crop_scale_min 0.2, jitter 1"
    assert title(kind="augment", blur_p=0.5, jitter=0) == "augment, crop_scale_min 0.2, jitter 0, blur_p 0.5"
    assert title(kind="factors", shared=["digit", "position"]).startswith("factors, shared digit + position, ")
    learned = "learned, mode semi_supervised, flow volume_preserving, base_space rgb"
    assert title(kind="learned", base_space="rgb") == learned
    assert title(kind="learned", base_space="rgb", labels=500, floor_nats=2) == f"{learned}, labels 500, floor_nats 2"
    before = title(kind="color_split", space="lab", before={"kind": "augment"})
    assert before == "color_split, space lab, first 0, before (augment, crop_scale_min 0.2, jitter 1)"
