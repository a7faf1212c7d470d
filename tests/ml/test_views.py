import typing

import pytest
import torch
import torchvision.transforms.v2.functional as V
from jaxtyping import TypeCheckError
from torch import Generator
from torchvision.transforms import RandomResizedCrop

from ml import spec, views
from ml.views import augment, resample

FAMILIES = typing.get_args(typing.get_args(spec.Views)[0])
IDENTITY = {"crop_scale_min": 1, "crop_ratio": (1, 1), "flip_p": 0, "jitter_p": 0, "grayscale_p": 0}


def recipe_of(family: type[spec.Part], **parameters: object) -> spec.Views:
    return family.model_validate({"kind": typing.get_args(family.model_fields["kind"].annotation)[0], **parameters})


def photographs(B: int = 6, C: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(B, C, size, size, generator=Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
class TestEveryFamily:
    def test_gives_two_float_batches_and_leaves_the_images_alone(self, family: type[spec.Part], channels: int) -> None:
        images = photographs(C=channels)
        before = images.clone()
        v1, v2 = views.make(recipe_of(family), images, Generator().manual_seed(0))
        assert v1.dtype == v2.dtype == torch.float32
        assert len(v1) == len(v2) == len(images)
        assert v1.isfinite().all() and v2.isfinite().all()
        assert torch.equal(images, before)

    def test_the_same_seed_gives_the_same_pixels(self, family: type[spec.Part], channels: int) -> None:
        first = views.make(recipe_of(family), photographs(C=channels), Generator().manual_seed(3))
        second = views.make(recipe_of(family), photographs(C=channels), Generator().manual_seed(3))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_where_there_is_chance_each_sample_has_its_own(self, family: type[spec.Part], channels: int) -> None:
        images = photographs(B=1, C=channels).expand(8, -1, -1, -1)
        v1, v2 = views.make(recipe_of(family), images, Generator().manual_seed(0))
        other, _ = views.make(recipe_of(family), images, Generator().manual_seed(1))
        if not torch.equal(v1, other):
            assert all(len(view.unique(dim=0)) > 4 for view in (v1, v2))
            assert v1.shape != v2.shape or not torch.equal(v1, v2)


def test_noise_has_the_standard_deviation_asked_for_and_is_not_clipped() -> None:
    images = torch.full((64, 1, 32, 32), 0.5)
    v1, v2 = views.make(recipe_of(spec.Noise, sigma=1.6), images, Generator().manual_seed(0))
    assert v1.std().item() == pytest.approx(1.6, rel=4 / (2 * v1.numel()) ** 0.5)
    assert torch.corrcoef(torch.stack((v1.flatten(), v2.flatten())))[0, 1].abs() < 4 / v1.numel() ** 0.5
    assert v1.min() < 0 and v1.max() > 1


def test_no_noise_is_the_identity() -> None:
    v1, v2 = views.make(recipe_of(spec.Noise, sigma=0), photographs(), Generator().manual_seed(0))
    assert torch.equal(v1, photographs()) and torch.equal(v2, photographs())


def test_a_crop_of_everything_is_the_identity() -> None:
    v1, v2 = views.make(recipe_of(spec.Crop, area=1), photographs(), Generator().manual_seed(0))
    assert torch.equal(v1, photographs()) and torch.equal(v2, photographs())


@pytest.mark.parametrize("area", [0.01, 0.25, 0.81])
def test_a_crop_of_a_ramp_is_a_ramp_with_the_square_root_of_the_area_as_slope(area: float) -> None:
    ramp = torch.linspace(0, 1, 32).expand(4, 1, 32, 32)
    v1, _ = views.make(recipe_of(spec.Crop, area=area), ramp, Generator().manual_seed(0))
    slopes = v1[:, 0, 0, 16] - v1[:, 0, 0, 15]
    torch.testing.assert_close(slopes, torch.full((4,), area**0.5 / 31), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 16, 16), (3, 5, 7, 9), (15, 0, 1, 16), (2, 2, 14, 3)])
def test_resized_boxes_are_torchvisions_resized_crop(box: tuple[int, int, int, int], flip: bool) -> None:
    images = photographs()
    expected = V.resized_crop(images, *box, size=[16, 16], antialias=True)
    expected = V.horizontal_flip(expected) if flip else expected
    corners = [torch.full((len(images),), float(side)) for side in box]
    actual = resample.resized_boxes(images, *corners, flip=torch.full((len(images),), flip))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("adjust", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_colour_factors_are_torchvisions(adjust: str, factor: float) -> None:
    images = photographs()
    actual = getattr(augment, f"adjust_{adjust}")(images, torch.full((len(images),), factor))
    torch.testing.assert_close(actual, getattr(V, f"adjust_{adjust}")(images, factor), rtol=0, atol=1e-6)


@pytest.mark.parametrize("adjust", ["brightness", "contrast"])
def test_colour_factors_of_grey_images_are_torchvisions(adjust: str) -> None:
    images = photographs(C=1)
    actual = getattr(augment, f"adjust_{adjust}")(images, torch.full((len(images),), 0.4))
    torch.testing.assert_close(actual, getattr(V, f"adjust_{adjust}")(images, 0.4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.1, 0.35, 0.5])
def test_hue_is_torchvisions(turns: float) -> None:
    images = photographs(B=4, size=32)
    images[0] = images[0].round()  # full and empty channels, greys, black and white: ties of the maximum
    images[1] = images[1][:1]
    actual = augment.adjust_hue(images, torch.full((4,), turns))
    torch.testing.assert_close(actual, V.adjust_hue(images, turns), rtol=0, atol=1e-5)


def test_grayscale_is_torchvisions() -> None:
    torch.testing.assert_close(augment.to_grayscale(photographs()), V.rgb_to_grayscale(photographs()), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("sigma", "radius"), [(0.1, 1), (0.7, 3), (2.0, 6), (5.0, 15)])
def test_blur_is_torchvisions(sigma: float, radius: int) -> None:
    images = photographs()
    actual = augment.gaussian_blur(images, torch.full((len(images),), sigma), radius)
    expected = V.gaussian_blur(images, kernel_size=[2 * radius + 1] * 2, sigma=[sigma] * 2)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_each_sample_has_its_own_factor() -> None:
    images, factors = photographs(B=3), torch.tensor([0.2, 1.0, 1.4])
    together = augment.adjust_contrast(images, factors)
    apart = [augment.adjust_contrast(images[i : i + 1], factors[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(apart))


def test_augment_without_any_chance_is_the_identity() -> None:
    v1, v2 = views.make(recipe_of(spec.Augment, **IDENTITY), photographs(), Generator().manual_seed(0))
    torch.testing.assert_close(v1, photographs(), rtol=0, atol=1e-6)
    torch.testing.assert_close(v2, photographs(), rtol=0, atol=1e-6)


def test_jitter_of_chance_zero_and_strength_zero_are_the_same() -> None:
    images = photographs()
    never = views.make(recipe_of(spec.Augment, jitter_p=0, grayscale_p=0), images, Generator().manual_seed(0))
    nothing = views.make(recipe_of(spec.Augment, jitter=0, grayscale_p=0), images, Generator().manual_seed(0))
    assert torch.equal(never[0], nothing[0])


@pytest.mark.parametrize("chance", ["flip_p", "jitter_p", "grayscale_p", "blur_p"])
def test_chances_are_taken_as_often_as_asked(chance: str) -> None:
    images = photographs(B=2000, size=8)
    v1, v2 = views.make(recipe_of(spec.Augment, **(IDENTITY | {chance: 0.3})), images, Generator().manual_seed(0))
    changed = torch.stack([(view - images).abs().amax(dim=(1, 2, 3)) > 1e-4 for view in (v1, v2)])
    assert changed.float().mean().item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 4000) ** 0.5)
    both = (changed[0] & changed[1]).float().mean().item()
    assert both == pytest.approx(0.09, abs=4 * (0.09 * 0.91 / 2000) ** 0.5)  # the two views' chances are independent


@pytest.mark.parametrize(("H", "W"), [(32, 32), (12, 40)])
def test_boxes_are_distributed_as_random_resized_crops(H: int, W: int) -> None:
    n, scale, ratio = 3000, (0.2, 1.0), (3 / 4, 4 / 3)
    ours = augment.random_boxes(scale[0], ratio, n, H, W, Generator().manual_seed(0)).T
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.empty(1, H, W)
        theirs = torch.tensor([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(n)]).float()
    error = (ours.var(dim=0) / n + theirs.var(dim=0) / n).sqrt()
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() <= 4 * error + 1e-9).all()
    assert ours.std(dim=0).numpy() == pytest.approx(theirs.std(dim=0).numpy(), rel=0.1)
    assert (ours[:, :2] >= 0).all() and (ours[:, 0] + ours[:, 2] <= H).all() and (ours[:, 1] + ours[:, 3] <= W).all()


def test_shapes_in_signatures_are_checked_here() -> None:
    with pytest.raises(TypeCheckError):
        augment.adjust_hue(photographs(C=1), torch.zeros(6))
    with pytest.raises(TypeCheckError):
        views.make(recipe_of(spec.Noise), photographs()[0], Generator())
