import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ml import spec, views
from ml.datasets.scenes import LATER, PAST, SPEED, Factor, Scenes, SceneSplit
from ml.datasets.textures import textures

FACTORS: tuple[Factor, ...] = ("digit", "background", "position")
SUBSETS = [subset for size in (1, 2, 3) for subset in itertools.combinations(FACTORS, size)]


def split_of(digits: int = 200, backgrounds: int = 50, size: int = 64, seed: int = 0) -> SceneSplit:
    """A split whose frames can be read: digits are squares, each of its own grey, and backgrounds are black but for one channel.

    Nothing of a background shows in green and blue, so there stands the digit alone, and in red the number of the background.
    """
    greys = 56 + torch.arange(digits) % 200
    stack = torch.zeros(backgrounds, 3, size, size, dtype=torch.uint8)
    stack[:, 0] = torch.arange(backgrounds)[:, None, None]
    return SceneSplit(
        greys.to(torch.uint8)[:, None, None].expand(-1, 28, 28).contiguous(),
        torch.arange(digits) % 10,
        stack,
        torch.arange(backgrounds) % 5,
        seed,
    )


def read(images: Tensor) -> dict[str, Tensor]:
    """What is seen in images of readable scenes: number of the digit and of the background, and the digit's centre in pixels."""
    cover = images[:, 1]
    mass = cover.sum(dim=(1, 2))[:, None]
    centres = torch.arange(images.shape[-1]) + 0.5
    rows, columns = (((cover.sum(dim=axis) * centres).sum(dim=1, keepdim=True) / mass)[:, 0] for axis in (2, 1))
    red = torch.where(cover < 1e-4, images[:, 0], 0).amax(dim=(1, 2))  # beside the digit
    greys = (255 * mass[:, 0] / 28**2).round().long()
    return {"digit": greys - 56, "background": (255 * red).round().long(), "position": torch.stack((rows, columns), dim=1)}


def at(time: int, scenes: Scenes) -> Tensor:
    return scenes.frames(torch.full((len(scenes), 1), time))[:, 0]


def random_scenes(n: int, seed: int = 0) -> Scenes:
    return split_of(seed=seed).draw(n, Generator().manual_seed(seed))


def made(shared: tuple[Factor, ...], n: int = 1000, seed: int = 0, **parameters: object) -> tuple[Tensor, Tensor]:
    recipe = spec.Factors.model_validate({"kind": "factors", "shared": shared, **parameters})
    items = torch.arange(n) % 200
    return views.make(recipe, split_of().take(items), Generator().manual_seed(seed))


def test_targets_are_what_is_to_be_seen_in_the_later_image() -> None:
    split = split_of()
    seen = read(at(LATER, split.take(torch.arange(len(split)))))
    assert torch.equal(seen["digit"], torch.arange(200))
    assert torch.equal(seen["digit"] % 10, split.targets["digit"])
    assert torch.equal(seen["background"] % 5, split.targets["background"])
    torch.testing.assert_close(seen["position"], split.targets["position"], rtol=0, atol=1e-4)


def test_backgrounds_without_classes_are_no_target() -> None:
    split = split_of()
    photographs = SceneSplit(split.digits, split.digit_labels, split.backgrounds, None, seed=0)
    assert photographs.targets.keys() == {"digit", "position"}


def test_the_seed_decides_the_canonical_scenes() -> None:
    items = torch.tensor([3, 199, 3])
    first, again, other = (at(LATER, split_of(seed=seed).take(items)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and torch.equal(first[0], first[2])
    assert not torch.equal(first, other)


def test_a_digit_on_whole_pixels_is_the_digit_and_white_covers() -> None:
    digit = torch.randint(256, (1, 28, 28), generator=Generator().manual_seed(0), dtype=torch.uint8)
    background = torch.full((1, 3, 64, 64), 51, dtype=torch.uint8)  # a fifth
    split = SceneSplit(digit, torch.zeros(1, dtype=torch.int64), background, None, seed=0)
    nothing = torch.zeros(1, dtype=torch.int64)
    scenes = Scenes(split, nothing, nothing, torch.zeros(1, 2), starts=torch.tensor([[5.0, 30.0]]), directions=torch.zeros(1))
    expected = torch.full((3, 64, 64), 0.2)
    expected[:, 5:33, 30:58] += 0.8 * digit[0] / 255
    torch.testing.assert_close(at(0, scenes)[0], expected, rtol=0, atol=1e-6)


def test_small_backgrounds_are_enlarged_as_torch_does() -> None:
    images = torch.randint(256, (7, 3, 32, 32), generator=Generator().manual_seed(0), dtype=torch.uint8)
    split = SceneSplit(torch.zeros(9, 28, 28, dtype=torch.uint8), torch.zeros(9).long(), images, None, seed=0)
    scenes = split.take(torch.arange(9))
    expected = F.interpolate(images[scenes.backgrounds] / 255, (64, 64), mode="bilinear")
    torch.testing.assert_close(at(0, scenes), expected, rtol=0, atol=1e-5)


def test_large_backgrounds_are_cropped_anywhere_and_a_clip_keeps_its_crop() -> None:
    down, right = torch.meshgrid(torch.arange(96), torch.arange(80), indexing="ij")
    image = torch.stack((down, right, torch.zeros_like(down))).to(torch.uint8)[None]
    split = SceneSplit(torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1).long(), image, None, seed=0)
    clips = 255 * split.draw(300, Generator().manual_seed(0)).frames(torch.tensor([[0, 7]]).expand(300, -1))
    assert torch.equal(clips[:, 0], clips[:, 1])
    tops, lefts = (clips[:, 0, channel, 0, 0].round().long() for channel in (0, 1))
    torch.testing.assert_close(clips[:, 0, 0, 63, 63], tops + 63.0)
    torch.testing.assert_close(clips[:, 0, 1, 63, 63], lefts + 63.0)
    for corners, room in ((tops, 32), (lefts, 16)):
        assert corners.min() == 0 and corners.max() == room
        error = math.sqrt(room * (room + 2) / 12 / 300)
        assert corners.double().mean().item() == pytest.approx(room / 2, abs=4 * error)


def test_walls_reflect_as_when_one_goes_step_by_step() -> None:
    scenes = random_scenes(50)
    slow = []
    for start, direction in zip(scenes.starts.tolist(), scenes.directions.tolist(), strict=True):
        place, heading, path = list(start), [math.sin(direction), math.cos(direction)], []
        for _ in range(20):
            path.append([side + 14 for side in place])
            for _ in range(640):  # a hundredth of a pixel at a time
                for axis in (0, 1):
                    if not 0 <= place[axis] + 0.01 * heading[axis] <= 36:
                        heading[axis] = -heading[axis]
                    place[axis] += 0.01 * heading[axis]
        slow.append(path)
    actual = scenes.positions(torch.arange(scenes.length).expand(50, -1))
    torch.testing.assert_close(actual, torch.tensor(slow), rtol=0, atol=0.1)


@pytest.mark.parametrize("time", [0, LATER])
def test_places_are_uniform_at_any_time(time: int) -> None:
    """Billiards keep a uniform distribution, so the mean distance from the centre stays 36 (sqrt(2) + asinh(1)) / 6 pixels."""
    places = random_scenes(20000).positions(torch.full((20000, 1), time))[:, 0]
    error = 36 / math.sqrt(12 * 20000)
    torch.testing.assert_close(places.mean(dim=0), torch.full((2,), 32.0), rtol=0, atol=4 * error)
    distance = (places - 32).norm(dim=1)
    expected = 36 * (math.sqrt(2) + math.asinh(1)) / 6
    assert distance.mean().item() == pytest.approx(expected, abs=4 * distance.std().item() / math.sqrt(20000))
    assert places.min() >= 14 and places.max() <= 50


@pytest.mark.parametrize("shared", SUBSETS, ids="+".join)
def test_what_is_shared_is_equal_and_what_is_not_is_independent(shared: tuple[Factor, ...]) -> None:
    n = 400
    past, later = made(shared, n, frames=2)
    assert past.shape == (n, 2, 3, 64, 64) and later.shape == (n, 3, 64, 64)
    last, seen = read(past[:, -1]), read(later)
    for factor, values in (("digit", 10), ("background", 50)):
        agreement = (last[factor] % values == seen[factor] % values).double().mean().item()
        chance = 1 / values
        expected = 1.0 if factor in shared else chance
        assert agreement == pytest.approx(expected, abs=0 if factor in shared else 4 * math.sqrt(chance * (1 - chance) / n))
    before = read(past[:, -2])["position"]
    reached = last["position"] + (LATER - PAST + 1) * (last["position"] - before)
    free = ((reached > 14) & (reached < 50) & ((last["position"] - before).norm(dim=1, keepdim=True) > SPEED - 1e-3)).all(dim=1)
    assert free.float().mean() > 0.3
    if "position" in shared:
        torch.testing.assert_close(seen["position"][free], reached[free], rtol=0, atol=0.01)
    else:
        together = torch.cat((last["position"], seen["position"]), dim=1).T
        assert torch.corrcoef(together)[:2, 2:].abs().max() < 4 / math.sqrt(n)


def test_a_digit_shared_by_class_is_any_handwriting_of_the_class() -> None:
    n = 1000
    past, later = made(("digit",), n, frames=1, digit_by="class")
    first, second = read(past[:, 0])["digit"], read(later)["digit"]
    assert torch.equal(first % 10, second % 10)
    same = (first == second).double().mean().item()
    assert same == pytest.approx(1 / 20, abs=4 * math.sqrt(1 / 20 * 19 / 20 / n))  # twenty of each class, all equally likely


def test_views_show_the_items_digits_and_all_else_anew_each_time() -> None:
    first, second = (read(made(("digit",), 200, seed=seed, frames=1)[0][:, 0]) for seed in (0, 1))
    assert torch.equal(first["digit"], torch.arange(200)) and torch.equal(second["digit"], torch.arange(200))
    assert (first["background"] == second["background"]).float().mean() < 0.1
    assert (first["position"] - second["position"]).norm(dim=1).min() > 0


def test_fewer_frames_are_the_last_ones() -> None:
    whole, _ = made(FACTORS, 20)
    last, _ = made(FACTORS, 20, frames=3)
    assert whole.shape[1] == 10
    assert torch.equal(whole[:, -3:], last)


def test_clean_items_are_the_canonical_later_images() -> None:
    split = split_of()
    scenes = split.take(torch.arange(20))
    (images,) = views.clean(spec.Factors(kind="factors"), scenes)
    assert torch.equal(images, at(LATER, scenes))


def test_textures_of_a_class_differ_and_another_seed_has_none_of_them() -> None:
    (first, labels), (again, _), (other, _) = (textures(200, 32, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert labels.bincount().tolist() == [20] * 10
    assert len(torch.cat((first, other)).flatten(1).unique(dim=0)) == 400


def test_the_class_of_a_texture_is_its_pattern_and_not_its_colours() -> None:
    """One nearest neighbour, by the amplitudes at each frequency or by mean and deviation of each channel."""
    (train, train_labels), (test, test_labels) = (textures(n, 64, seed) for n, seed in ((2000, 0), (500, 1)))

    def accuracy(features: Callable[[Tensor], Tensor]) -> float:
        nearest = torch.cdist(features(test / 255), features(train / 255)).argmin(dim=1)
        return (train_labels[nearest] == test_labels).double().mean().item()

    def spectrum(images: Tensor) -> Tensor:
        grey = images[:, 0] - images[:, 0].mean(dim=(1, 2), keepdim=True)
        return torch.fft.rfft2(grey / grey.std(dim=(1, 2), keepdim=True)).abs().flatten(1).log1p()

    assert accuracy(spectrum) > 0.5
    assert accuracy(lambda images: images.mean(dim=(2, 3))) < 0.3
