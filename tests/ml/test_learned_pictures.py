"""Pictures of learned colour spaces: what they show is what the map gives, where they say so."""

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, nn

from ml import page, spec
from ml.datasets import Data
from ml.datasets.raw import BYTES
from ml.datasets.split import ImageSplit, Pixels
from ml.learned_views import Found, pictures
from ml.learned_views.flow import Flow
from ml.views.color import to_color_space

CPU = torch.device("cpu")
Picture = NDArray[np.uint8]


def found(std: float = 0.0, **parts: object) -> Found:
    """The map with which learning begins, which is its base space; with a `std`, one that is not."""
    asked = spec.Learned.model_validate({"kind": "learned", "base_space": "rgb", **parts})
    torch.manual_seed(0)
    flow = Flow(asked)
    if std:
        for weights in flow.parameters():
            nn.init.normal_(weights, std=std)
    return Found.of(asked, flow)


def data_of(*levels: int, items: int = 3, size: int = 32) -> Data:
    """Images of pixels that have one of these levels; by default of all there are."""
    chosen = torch.tensor(levels or range(256), dtype=torch.uint8)
    numbers = torch.randint(len(chosen), (items, 3, size, size), generator=Generator().manual_seed(1))
    split = ImageSplit(Pixels(chosen[numbers], BYTES, CPU), {})
    facts = spec.DatasetFacts(name="small", train=items, test=items, channels=3, image_size=size)
    return Data(facts, split, split, "", CPU)


def picture_of(png: bytes) -> Picture:
    return np.asarray(Image.open(io.BytesIO(png)))


def places(picture: Picture, part: Picture) -> list[tuple[int, int]]:
    """The top and the left of each place where the picture holds the part."""
    whole, wanted = (np.tensordot(pixels, (1 << 16, 1 << 8, 1), axes=1) for pixels in (picture, part))
    windows = np.lib.stride_tricks.sliding_window_view(whole, wanted.shape)
    alike = np.ones(windows.shape[:2], dtype=bool)
    for down, across in np.random.default_rng(0).integers(0, wanted.shape, (12, 2)):
        alike &= windows[:, :, down, across] == wanted[down, across]
    return [(int(top), int(left)) for top, left in np.argwhere(alike) if np.array_equal(windows[top, left], wanted)]


def written(letters: page.Letters, words: str) -> Picture:
    return np.asarray(letters.written([words], page.WIDEST))


def enlarged(data: Data, item: int) -> Picture:
    """An image of 32 pixels as it is shown, at 128."""
    return data.train.pixels.stored[item].permute(1, 2, 0).numpy().repeat(4, axis=0).repeat(4, axis=1)


def as_tile(plane: torch.Tensor, low: float, high: float) -> Picture:
    """A channel [H W] in grey from black at `low` to white at `high`, enlarged likewise."""
    grey = (255 * ((plane - low) / (high - low)).clamp(0, 1)).round().byte().numpy()
    return np.repeat(grey.repeat(4, axis=0).repeat(4, axis=1)[..., None], 3, axis=2)


def central(planes: torch.Tensor) -> tuple[float, float]:
    """The ends of the central 99 %, of numbers that stand there in the order of their size."""
    ordered = planes.flatten().sort().values
    outside = round(0.005 * (len(ordered) - 1))
    return ordered[outside].item(), ordered[-1 - outside].item()


# Of images ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base_space", ["rgb", "ydbdr"])
def test_what_is_not_moved_is_shown_twice_in_the_row_of_its_image(base_space: str) -> None:
    data = data_of()
    picture = picture_of(pictures.channels(found(base_space=base_space), data, items=3, seed=0))
    images = data.train.take(torch.arange(3))
    planes = to_color_space(images, base_space)
    for channel in range(3):
        ends = central(planes[:, channel])
        for item in range(3):
            ((top, left), (same_top, further_right)) = places(picture, as_tile(planes[item, channel], *ends))
            ((top_of_image, left_of_image),) = places(picture, enlarged(data, item))
            assert top == same_top == top_of_image and left_of_image < left < further_right


def test_learned_channels_are_those_of_the_map_and_the_others_stay_beside_them() -> None:
    data, recipe = data_of(), found(std=0.5, base_space="ydbdr", flow="non_volume_preserving")
    picture = picture_of(pictures.channels(recipe, data, items=3, seed=0))
    images = data.train.take(torch.arange(3))
    lefts = []
    for planes in (images, to_color_space(images, "ydbdr"), recipe.channels(images)):
        for channel in range(3):
            ((_, left),) = places(picture, as_tile(planes[0, channel], *central(planes[:, channel])))
            lefts.append(left)
    assert lefts == sorted(lefts)


def test_each_channel_has_its_name_and_its_range_over_it() -> None:
    picture = picture_of(pictures.channels(found(), data_of(51, 204), items=2, seed=0))
    (y,) = {top for top, _ in places(picture, written(page.NAME, "Y"))}
    for name in ("red", "green", "blue", "Db", "Dr", "g1", "g2", "g3"):
        assert [top for top, _ in places(picture, written(page.NAME, name))] == [y]
    # Y of equal parts is 0.2 to 0.8 too
    assert len(places(picture, written(page.CAPTION, "0.2 to 0.8"))) == 7
    assert len(places(picture, written(page.CAPTION, "-0.8 to 0.8"))) == 2
    title = "learned, mode semi_supervised, flow volume_preserving, base_space rgb"
    assert places(picture, written(page.TITLE, title)) == [(page.MARGIN, page.MARGIN)]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_items_are_those_of_a_preview_of_the_same_seed(seed: int) -> None:
    data = data_of(items=12)
    png = pictures.channels(found(), data, items=4, seed=seed)
    assert png == pictures.channels(found(), data, items=4, seed=seed)
    chosen = torch.randperm(12, generator=Generator().manual_seed(seed))
    tops = [places(picture_of(png), enlarged(data, item)) for item in chosen.tolist()]
    assert [len(at) for at in tops] == [1] * 4 + [0] * 8
    assert tops == sorted(tops[:4]) + [[]] * 8


@pytest.mark.parametrize(("size", "tile"), [(8, 128), (33, 99), (96, 96), (300, 100)])
def test_images_of_any_size_fit(size: int, tile: int) -> None:
    picture = picture_of(pictures.channels(found(), data_of(items=2, size=size), items=2, seed=0))
    assert picture.shape[1] == 2 * page.MARGIN + 10 * tile + 6 * page.SEAM + 3 * page.GAP
    reduced = places(picture, written(page.TEXT, "shown at 1/3 of their size"))
    assert len(reduced) == (size == 300)


# Of all colours -------------------------------------------------------------------------------------------------------


def slice_of(blue: float) -> Picture:
    """Red grows to the right and green upwards, in 200 pixels."""
    ramp = np.broadcast_to(np.linspace(0, 255, 200).round(), (200, 200))
    return np.stack((ramp, ramp.T[::-1], np.full_like(ramp, round(255 * blue))), axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def unmoved() -> Picture:
    return picture_of(pictures.colour_space(found()))


def slices(picture: Picture) -> list[Picture]:
    """Of each blue what stands from the slice of colours on to the right, where columns are 212 pixels apart."""
    found_at = [places(picture, slice_of(blue)) for blue in (0, 0.25, 0.5, 0.75, 1)]
    assert all(len(at) == 1 for at in found_at)
    tops, lefts = zip(*(at[0] for at in found_at), strict=True)
    assert list(tops) == sorted(tops) and len(set(lefts)) == 1
    return [picture[top : top + 200, left:] for top, left in zip(tops, lefts, strict=True)]


def is_orange(pixel: Picture) -> bool:
    red, green, blue = pixel.astype(int)
    return red - green > 50 and green - blue > 20


def test_colours_stand_at_their_places(unmoved: Picture) -> None:
    first, *_, last = slices(unmoved)
    corners = {(0, 0): (0, 255), (0, 199): (255, 255), (199, 0): (0, 0), (199, 199): (255, 0)}
    for place, (red, green) in corners.items():
        assert tuple(first[place]) == (red, green, 0)
        assert tuple(last[place]) == (red, green, 255)


def test_channels_stand_beside_their_colours_from_black_to_white_with_lines_at_round_numbers(unmoved: Picture) -> None:
    for blue, row in zip((0, 64, 128, 191, 255), slices(unmoved), strict=True):
        g1, g2, g3 = (row[:, left : left + 200] for left in (212, 424, 636))
        for place in (round(19.9 * nth) for nth in range(1, 10)):  # where red is 0.1, 0.2 and so on
            assert is_orange(g1[77, place]) and is_orange(g2[199 - place, 77])
        for x in (0, 10, 50, 149, 199):  # between two lines
            assert tuple(g1[77, x]) == (round(255 * x / 199),) * 3
            assert tuple(g2[199 - x, 77]) == (round(255 * x / 199),) * 3
        assert (g3 == blue).all()


def test_lines_do_not_fall_upon_a_channel_that_is_flat_at_a_round_number(unmoved: Picture) -> None:
    """g3 is 0.5 all over the middle slice, and a line there would be the slice."""
    assert (slices(unmoved)[2][:, 636:836] == 128).all()


def test_each_channel_has_one_scale_over_all_colours(unmoved: Picture) -> None:
    assert len(places(unmoved, written(page.CAPTION, "0 to 1, a line every 0.1"))) == 3
    picture = picture_of(pictures.colour_space(found(base_space="ydbdr")))
    assert len(places(picture, written(page.CAPTION, "0 to 1, a line every 0.1"))) == 1
    assert len(places(picture, written(page.CAPTION, "-1.33 to 1.33, a line every 0.2"))) == 2


def test_a_learned_channel_is_shown_as_the_map_gives_it() -> None:
    recipe = found(std=0.5, base_space="ydbdr")
    middle = slices(picture_of(pictures.colour_space(recipe)))[2]
    cube = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 33)] * 3, indexing="ij"))[None].flatten(3)
    channel = recipe.channels(cube)[0, 0]
    low, high = channel.min().item(), channel.max().item()
    pixels = torch.tensor([(20, 30), (100, 50), (150, 190)])
    for y, x in pixels.tolist():
        colour = torch.tensor((x / 199, 1 - y / 199, 0.5)).view(1, 3, 1, 1)
        expected = 255 * (recipe.channels(colour)[0, 0].item() - low) / (high - low)
        shown = middle[y - 2 : y + 3, 212 + x - 2 : 212 + x + 3].reshape(-1, 3)
        greys = shown[(shown == shown[:, :1]).all(axis=1), 0]
        assert np.abs(greys.astype(float) - expected).min() < 3
