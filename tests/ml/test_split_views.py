import math
import typing

import pytest
import torch
import torchvision.transforms.v2.functional as V
from torch import Generator, Tensor

from ml import spec, views
from ml.datasets.clips import Clips
from ml.datasets.scenes import SceneSplit
from ml.datasets.split import Pixels
from ml.views import drawn
from ml.views.color import to_color_space
from ml.views.frequency import blurred

SPACES = typing.get_args(spec.ColorSpace)
FLIPPED = {"kind": "augment", "crop_p": 0, "flip_p": 1, "jitter_p": 0, "grayscale_p": 0}
CROPPED = {"kind": "augment", "crop_scale_min": 0.2, "jitter_p": 0, "grayscale_p": 0}


def photographs(B: int = 6, C: int = 3, H: int = 16, W: int = 16) -> Tensor:
    return torch.rand(B, C, H, W, generator=Generator().manual_seed(1))


def color_split(**parameters: object) -> spec.ColorSplit:
    return spec.ColorSplit.model_validate({"kind": "color_split", **parameters})


def frequency(**parameters: object) -> spec.Frequency:
    return spec.Frequency.model_validate({"kind": "frequency", **parameters})


def temporal(gap: int) -> spec.Temporal:
    return spec.Temporal(kind="temporal", gap=gap)


def numbered_clips(items: int, length: int) -> Clips:
    """Each frame of item i shows i + 1000 times its time."""
    shown = torch.arange(items)[:, None] + 1000 * torch.arange(length)
    frames = shown[:, :, None, None, None].expand(-1, -1, 1, 2, 2).float()
    return Clips(Pixels(frames, (0.0, 1.0), torch.device("cpu")), torch.arange(items))


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("space", SPACES)
def test_the_two_views_are_the_channels_of_the_space(space: str, first: int) -> None:
    v1, v2 = views.make(color_split(space=space, first=first), photographs(), Generator())
    planes = to_color_space(photographs(), space)
    assert v1.shape[1] == 1 and v2.shape[1] == 2
    rejoined = torch.cat((v2[:, :first], v1, v2[:, first:]), dim=1)
    assert torch.equal(rejoined, planes)


@pytest.mark.parametrize("recipe", [color_split(space="yuv"), color_split(space="hsv", first=2), frequency(sigma=1)])
def test_what_the_tasks_see_is_split_without_chance(recipe: spec.Views) -> None:
    expected = views.make(recipe, photographs(), Generator())
    for before in (None, CROPPED):
        disturbed = recipe.model_copy(update={"before": before and spec.Augment.model_validate(before)})
        planes = views.clean(disturbed, photographs())
        assert all(torch.equal(plane, view) for plane, view in zip(planes, expected, strict=True))


@pytest.mark.parametrize("recipe", [color_split(space="lab"), frequency(sigma=0.7)])
def test_what_comes_before_comes_before_the_split(recipe: spec.Views) -> None:
    flipped = recipe.model_copy(update={"before": spec.Augment.model_validate(FLIPPED)})
    actual = views.make(flipped, photographs(), Generator().manual_seed(0))
    expected = views.make(recipe, photographs().flip(3), Generator())
    for view, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(view, other, rtol=0, atol=1e-3)


@pytest.mark.parametrize("recipe", [color_split(space="rgb", before=CROPPED), frequency(sigma=1e-3, before=CROPPED)])
def test_the_views_come_from_the_two_crops(recipe: spec.ColorSplit | spec.Frequency) -> None:
    v1, v2 = views.make(recipe, photographs(), Generator().manual_seed(0))
    crop1, crop2 = views.make(recipe.before, photographs(), Generator().manual_seed(0))
    if isinstance(recipe, spec.ColorSplit):
        assert torch.equal(v1, crop1[:, :1]) and torch.equal(v2, crop2[:, 1:])
    else:
        torch.testing.assert_close(v1, crop1)
        assert v2.abs().max() < 1e-6


@pytest.mark.parametrize("channels", [1, 3, 13])
@pytest.mark.parametrize("sigma", [0.05, 0.7, 3.0, 100.0])
def test_low_and_high_frequencies_add_up_to_the_image(sigma: float, channels: int) -> None:
    images = photographs(C=channels, H=12, W=20)
    v1, v2 = views.make(frequency(sigma=sigma), images, Generator())
    assert v1.shape == v2.shape == images.shape
    torch.testing.assert_close(v1 + v2, images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.0, 2.9])
def test_low_frequencies_are_torchvisions_blur(sigma: float) -> None:
    images = photographs(H=14, W=18)
    size = 2 * math.ceil(4 * sigma) + 1
    expected = V.gaussian_blur(images, kernel_size=[size, size], sigma=[sigma, sigma])
    torch.testing.assert_close(blurred(images, sigma), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("half_waves", [1, 4, 9])
def test_a_wave_keeps_the_share_that_a_gaussian_passes(half_waves: int, sigma: float) -> None:
    """exp(-w^2 sigma^2 / 2): reflected edges continue a cosine of whole half waves. Within 0.002 by sampling and cutting."""
    omega = math.pi * half_waves / 31
    wave = torch.cos(omega * torch.arange(32)).expand(1, 1, 32, 32)
    low, high = views.make(frequency(sigma=sigma), wave, Generator())
    passed = math.exp(-((omega * sigma) ** 2) / 2)
    torch.testing.assert_close(low, passed * wave, rtol=0, atol=2e-3)
    torch.testing.assert_close(high, (1 - passed) * wave, rtol=0, atol=2e-3)


def test_an_even_image_has_low_frequencies_alone() -> None:
    low, high = views.make(frequency(sigma=2), torch.full((2, 3, 9, 11), 0.3), Generator())
    torch.testing.assert_close(low, torch.full((2, 3, 9, 11), 0.3))
    assert high.abs().max() < 1e-6


@pytest.mark.parametrize(("length", "gap"), [(10, 4), (10, 0), (10, 9)])
def test_frames_lie_the_gap_apart_at_every_time_alike(length: int, gap: int) -> None:
    clips, possible = numbered_clips(items=900, length=length), length - gap
    v1, v2 = views.make(temporal(gap), clips, Generator().manual_seed(0))
    times = (v1[:, 0, 0, 0] / 1000).floor()
    assert torch.equal(v1[:, 0, 0, 0] % 1000, torch.arange(900.0))
    assert torch.equal(v2, v1 + 1000 * gap)
    counts = torch.bincount(times.long(), minlength=length)
    share = 1 / possible
    assert len(counts) == length and (counts[possible:] == 0).all()
    assert counts[:possible].tolist() == pytest.approx([900 * share] * possible, abs=4 * (900 * share * (1 - share)) ** 0.5)


def test_the_tasks_see_the_frame_in_the_middle() -> None:
    (frames,) = views.clean(temporal(2), numbered_clips(items=3, length=9))
    assert frames[:, 0, 0, 0].tolist() == [4000, 4001, 4002]


def test_of_a_scene_the_tasks_see_the_frame_that_they_ask_about() -> None:
    digits = torch.full((4, 28, 28), 255, dtype=torch.uint8)
    black = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    split = SceneSplit(digits, torch.arange(4), black, None, seed=0)
    scenes = split.take(torch.arange(4))
    (frames,) = views.clean(temporal(1), scenes)
    rows, columns = frames[:, 0].sum(dim=2), frames[:, 0].sum(dim=1)
    centres = torch.stack([(weights * (torch.arange(64) + 0.5)).sum(1) / weights.sum(1) for weights in (rows, columns)], dim=1)
    torch.testing.assert_close(centres, split.targets["position"], rtol=0, atol=0.02)
    v1, v2 = views.make(temporal(1), scenes, Generator().manual_seed(0))
    assert v1.shape == v2.shape == (4, 3, 64, 64) and not torch.equal(v1, v2)


def test_pairs_are_the_users_own() -> None:
    pairs = photographs(C=1), photographs(C=4, H=8, W=5)
    recipe = spec.Paired(kind="paired")
    assert views.make(recipe, pairs, Generator()) == pairs
    assert views.clean(recipe, pairs) == pairs


def test_times_are_noted_for_captions() -> None:
    clips = numbered_clips(items=5, length=10)
    with drawn.recording() as record:
        v1, _ = views.make(temporal(3), clips, Generator().manual_seed(0))
    for sample, time in enumerate((v1[:, 0, 0, 0] / 1000).long().tolist()):
        assert record.captions(sample) == ([f"frames {time}, {time + 3}"], [], [])
