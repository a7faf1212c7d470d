import json
import math
from collections import Counter

import pytest
import torch
import torchvision.transforms.v2.functional as V
from pydantic import ValidationError
from torch import Generator
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from ml import spec, views
from ml.views import adjust, affine, augment, drawn, randaugment

IDENTITY = {"crop_p": 0, "flip_p": 0, "jitter_p": 0, "grayscale_p": 0}
CHANCES = ("flip_p", "rotate_p", "jitter_p", "blur_p", "randaugment_p", "grayscale_p", "solarize_p", "cutout_p")
EVERYTHING = {"randaugment_n": 2, **dict.fromkeys(("crop_p", *CHANCES), 1.0)}
BILINEAR = {"interpolation": InterpolationMode.BILINEAR}


def recipe_of(**parameters: object) -> spec.Augment:
    return spec.Augment.model_validate({"kind": "augment", **parameters})


def augmented(images: torch.Tensor, seed: int = 0, **parameters: object) -> tuple[torch.Tensor, torch.Tensor]:
    return views.make(recipe_of(**parameters), images, Generator().manual_seed(seed))


def photographs(B: int = 6, C: int = 3, H: int = 16, W: int = 16) -> torch.Tensor:
    return torch.rand(B, C, H, W, generator=Generator().manual_seed(1))


def assert_same(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


# One operation on fixed parameters, against torchvision ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize("channels", [1, 3])
def test_colour_factors_are_torchvisions(name: str, factor: float, channels: int) -> None:
    images = photographs(C=channels)
    expected = getattr(V, f"adjust_{name}")(images, factor)
    assert_same(getattr(adjust, f"{name}_")(images, torch.full((len(images),), factor)), expected, atol=1e-6)


@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.1, 0.35, 0.5])
def test_hue_is_torchvisions(turns: float) -> None:
    images = photographs(B=4, H=32, W=32)
    images[0] = images[0].round()  # full and empty channels, greys, black and white: ties of the maximum
    images[1] = images[1][:1]
    expected = V.adjust_hue(images, turns)
    assert_same(adjust.hue_(images, torch.full((4,), turns)), expected)


def test_grayscale_is_torchvisions() -> None:
    assert_same(adjust.to_grayscale(photographs()), V.rgb_to_grayscale(photographs()), atol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_solarizing_is_torchvisions(threshold: float) -> None:
    images = photographs()
    expected = V.solarize(images, threshold)
    assert_same(adjust.solarize_(images, torch.full((len(images),), threshold)), expected, atol=1e-6)


@pytest.mark.parametrize(("sigma", "radius"), [(0.1, 1), (0.7, 3), (2.0, 6), (5.0, 15)])
@pytest.mark.parametrize("W", [16, 20])
def test_blur_is_torchvisions(sigma: float, radius: int, W: int) -> None:
    images = photographs(W=W)
    expected = V.gaussian_blur(images, kernel_size=[2 * radius + 1] * 2, sigma=[sigma] * 2)
    assert_same(augment.gaussian_blur(images, torch.full((len(images),), sigma), radius), expected)


def test_blur_and_grayscale_may_change_places() -> None:
    images, sigma = photographs(), torch.full((6,), 1.3)
    assert_same(
        adjust.to_grayscale(augment.gaussian_blur(images, sigma, 4)), augment.gaussian_blur(adjust.to_grayscale(images), sigma, 4)
    )


@pytest.mark.parametrize("degrees", [-170.0, -30.0, 0.0, 12.5, 45.0])
def test_rotation_is_torchvisions(degrees: float) -> None:
    images = photographs(H=12, W=20)
    actual = affine.affine(images, affine.rotation(torch.full((len(images),), degrees)))
    assert_same(actual, V.rotate(images, degrees, **BILINEAR))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (5, 11), (15, 8)])
@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 1.0])
def test_cutout_erases_a_square_as_far_as_it_lies_in_the_image(row: int, column: int, share: float) -> None:
    images, side = photographs(), max(round(16 * share), 1)
    top, left = row - side // 2, column - side // 2
    bottom, right = min(top + side, 16), min(left + side, 16)
    top, left = max(top, 0), max(left, 0)
    expected = V.erase(images, top, left, bottom - top, right - left, torch.zeros(()))
    centres = (torch.full((len(images),), float(centre)) for centre in (row, column))
    assert torch.equal(augment.cut_out(images, *centres, share), expected)


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    return V.to_dtype(images, torch.uint8, scale=True)


def as_floats(images: torch.Tensor) -> torch.Tensor:
    return V.to_dtype(images, torch.float32, scale=True)


def reference(name: str, images: torch.Tensor, magnitude: int, sign: int) -> torch.Tensor:
    """RandAugment's operations by the magnitudes of torchvision's table, with its 31 bins."""
    H, W = images.shape[-2:]
    share = magnitude / 30
    slope = math.degrees(math.atan(sign * 0.3 * share))
    right, down = (int(sign * 150 / 331 * side * share) for side in (W, H))
    still = {"angle": 0, "scale": 1, **BILINEAR}
    return {
        "Identity": lambda: images,
        "ShearX": lambda: V.affine(images, translate=[0, 0], shear=[slope, 0], center=[0, 0], **still),
        "ShearY": lambda: V.affine(images, translate=[0, 0], shear=[0, slope], center=[0, 0], **still),
        "TranslateX": lambda: V.affine(images, translate=[right, 0], shear=[0, 0], **still),
        "TranslateY": lambda: V.affine(images, translate=[0, down], shear=[0, 0], **still),
        "Rotate": lambda: V.rotate(images, sign * 30 * share, **BILINEAR),
        "Brightness": lambda: V.adjust_brightness(images, 1 + sign * 0.9 * share),
        "Color": lambda: V.adjust_saturation(images, 1 + sign * 0.9 * share),
        "Contrast": lambda: V.adjust_contrast(images, 1 + sign * 0.9 * share),
        "Sharpness": lambda: V.adjust_sharpness(images, 1 + sign * 0.9 * share),
        "Posterize": lambda: as_floats(V.posterize(as_bytes(images), 8 - round(4 * share))),
        "Solarize": lambda: V.solarize(images, 1 - share),
        "AutoContrast": lambda: V.autocontrast(images),
        "Equalize": lambda: as_floats(V.equalize(as_bytes(images))),
    }[name]()


@pytest.mark.parametrize("name", randaugment.OPERATIONS)
@pytest.mark.parametrize("magnitude", [0, 10, 30])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_operations_of_randaugment_are_torchvisions(name: str, magnitude: int, sign: int, channels: int) -> None:
    images = photographs(B=4, C=channels, H=24, W=36)
    images[0] = 0.3 + images[0] / 4
    images[1, 0] = 0.5  # one level only
    expected = reference(name, images, magnitude, sign)
    numbers = torch.full((4,), randaugment.OPERATIONS.index(name))
    assert_same(randaugment.operate_(images, numbers, torch.full((4,), sign * magnitude / 30)), expected, atol=2e-5)


# Chances --------------------------------------------------------------------------------------------------------------


def test_each_sample_has_its_own_factor() -> None:
    images, factors = photographs(B=3), torch.tensor([0.2, 1.0, 1.4])
    apart = [adjust.contrast_(images[i : i + 1].clone(), factors[i : i + 1]) for i in range(3)]
    assert_same(adjust.contrast_(images, factors), torch.cat(apart), atol=1e-6)


def test_each_sample_of_randaugment_has_its_own_operation() -> None:
    images, numbers = photographs(B=28), torch.arange(28) % 14
    apart = [randaugment.operate_(images[i : i + 1].clone(), numbers[i : i + 1], torch.tensor([0.5])) for i in range(28)]
    assert_same(randaugment.operate_(images, numbers, torch.full((28,), 0.5)), torch.cat(apart), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_with_everything_on_samples_differ_and_the_images_stay(channels: int) -> None:
    images = photographs(B=1, C=channels).repeat(16, 1, 1, 1)
    before = images.clone()
    v1, v2 = augmented(images, **(EVERYTHING | {"cutout_share": 0.2}))
    assert torch.equal(images, before)
    assert v1.shape == v2.shape == images.shape
    assert all(view.isfinite().all() and view.min() >= -1e-6 and view.max() <= 1 + 1e-6 for view in (v1, v2))
    assert len(torch.cat((v1, v2)).unique(dim=0)) == 32


def test_augment_without_any_chance_is_the_identity() -> None:
    v1, v2 = augmented(photographs(), **IDENTITY)
    assert_same(v1, photographs(), atol=1e-6)
    assert_same(v2, photographs(), atol=1e-6)


@pytest.mark.parametrize("nothing", [{"jitter": 0}, {"jitter_strengths": (0, 0, 0, 0)}])
def test_jitter_of_strength_zero_changes_nothing(nothing: dict[str, object]) -> None:
    v1, _ = augmented(photographs(), **(IDENTITY | {"jitter_p": 1} | nothing))
    assert_same(v1, photographs(), atol=1e-6)


@pytest.mark.parametrize("chance", [chance for chance in CHANCES if chance != "randaugment_p"])
def test_chances_are_taken_as_often_as_asked(chance: str) -> None:
    images = photographs(B=2000, H=8, W=8)
    v1, v2 = augmented(images, **(IDENTITY | {chance: 0.3}))
    changed = torch.stack([(view - images).abs().amax(dim=(1, 2, 3)) > 1e-4 for view in (v1, v2)])
    assert changed.float().mean().item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 4000) ** 0.5)
    both = (changed[0] & changed[1]).float().mean().item()
    assert both == pytest.approx(0.09, abs=4 * (0.09 * 0.91 / 2000) ** 0.5)  # the two views' chances are independent


def test_randaugment_takes_every_operation_as_often_and_both_signs() -> None:
    B, p = 5600, 0.75
    images = torch.full((B, 1, 3, 3), 0.5)
    with drawn.recording() as record:
        v1, _ = augmented(images, **(IDENTITY | {"randaugment_n": 1, "randaugment_m": 10, "randaugment_p": p}))
    told = Counter(caption for sample in range(B) for caption in record.captions(sample)[1])
    share = p / 14
    assert sum(told.values()) / B == pytest.approx(p, abs=4 * (p * (1 - p) / B) ** 0.5)
    for name in randaugment.OPERATIONS:
        assert told[f"RandAugment {name}"] / B == pytest.approx(share, abs=4 * (share * (1 - share) / B) ** 0.5)
    brighter, darker = ((v1[:, 0, 1, 1] - 0.5 * factor).abs() < 1e-4 for factor in (1.3, 0.7))
    assert brighter.sum() + darker.sum() == told["RandAugment Brightness"]
    assert brighter.sum().item() / B == pytest.approx(share / 2, abs=4 * (share / 2 / B) ** 0.5)


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


def test_where_no_box_fits_it_is_the_central_one() -> None:
    image, ratio = torch.empty(1, 12, 41), (1.0, 1.0)
    theirs = RandomResizedCrop.get_params(image, (1.0, 1.0), ratio)
    assert augment.random_boxes(1.0, ratio, 3, 12, 41, Generator()).T.tolist() == [list(theirs)] * 3


def test_jitter_draws_factors_uniformly_around_one() -> None:
    n, most = 2000, 0.6
    recipe = IDENTITY | {"jitter": 1.5, "jitter_strengths": (0.4, 0, 0, 0), "jitter_p": 1}
    v1, _ = augmented(torch.full((n, 1, 2, 2), 0.5), **recipe)
    factors = v1[:, 0, 0, 0] / 0.5
    assert 1 - most - 1e-5 <= factors.min() and factors.max() <= 1 + most + 1e-5
    assert factors.mean().item() == pytest.approx(1, abs=4 * most / (3 * n) ** 0.5)
    assert factors.std().item() == pytest.approx(most / 3**0.5, rel=0.05)


def test_hue_turns_by_half_the_circle_at_most() -> None:
    recipe = IDENTITY | {"jitter": 2.5, "jitter_strengths": (0, 0, 0, 1), "jitter_p": 1}
    with drawn.recording() as record:
        augmented(photographs(B=500, H=2, W=2), **recipe)
    turns = [float(caption.split()[1]) for sample in range(500) for caption in record.captions(sample)[1]]
    assert max(abs(turn) for turn in turns) == pytest.approx(0.5, abs=0.02)


def test_what_is_cut_out_last_stays_black() -> None:
    recipe = IDENTITY | {"blur_p": 1, "solarize_p": 1, "solarize_threshold": 0, "cutout_p": 1, "cutout_share": 0.5}
    v1, _ = augmented(photographs(), **recipe)
    black = (v1 == 0).all(dim=1).float().mean(dim=(1, 2))
    assert ((black >= 1 / 16) & (black <= 1 / 4)).all()


def test_captions_belong_to_the_view_of_which_they_tell() -> None:
    recipe = IDENTITY | {"blur_p": 1, "blur_sigma": (2, 2), "v2": {"blur_p": 0, "flip_p": 1, "grayscale_p": 1}}
    with drawn.recording() as record:
        augmented(photographs(), **recipe)
    assert record.captions(0) == ([], ["blur 2 px"], ["flip left to right", "colours grey"])


# Recipes --------------------------------------------------------------------------------------------------------------


SHARED = {"crop_ratio": (3 / 4, 4 / 3), "crop_p": 1, "flip_p": 0.5, "jitter_p": 0.8, "grayscale_p": 0.2}
STRONG, MILD = (0.8, 0.8, 0.8, 0.2), (0.4, 0.4, 0.4, 0.1)
BLURRED = {"blur_sigma": (0.1, 2.0), "blur_p": 0.5}
NEVER = {"rotate_p": 0, "solarize_p": 0, "cutout_p": 0}
PUBLISHED = {
    "simclr": {"crop_scale_min": 0.08, "strengths": STRONG, **BLURRED, "randaugment_n": 0},
    "moco_v2": {"crop_scale_min": 0.2, "strengths": MILD, **BLURRED, "randaugment_n": 0},
    "infomin": {"crop_scale_min": 0.2, "strengths": STRONG, **BLURRED, "randaugment_n": 2, "randaugment_m": 10},
    "byol": {"crop_scale_min": 0.08, "strengths": (0.4, 0.4, 0.2, 0.1), **BLURRED, "blur_p": 1, "randaugment_n": 0},
    "lightly_cifar10": {"crop_scale_min": 0.08, "strengths": MILD, "blur_p": 0, "randaugment_n": 0},
}


def effective(operations: spec.Operations) -> dict[str, object]:
    strengths = tuple(operations.jitter * strength for strength in operations.jitter_strengths)
    return operations.model_dump() | {"strengths": pytest.approx(strengths)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_are_the_published_ones(name: str) -> None:
    recipe = recipe_of(recipe=name)
    expected = SHARED | NEVER | PUBLISHED[name]
    assert expected.items() <= effective(recipe).items()
    if name == "byol":  # the one whose views are made differently
        expected |= {"blur_p": 0.1, "solarize_p": 0.2, "solarize_threshold": 0.5}
    assert expected.items() <= effective(recipe.of_v2).items()


@pytest.mark.parametrize("name", [None, *PUBLISHED])
def test_a_recipe_written_out_is_itself(name: str | None) -> None:
    recipe = recipe_of(recipe=name)
    assert set(recipe.model_dump()) == {"kind", "recipe", "v2", *spec.Operations.model_fields}
    assert spec.Augment.model_validate(recipe.model_dump()) == recipe
    assert spec.Augment.model_validate_json(recipe.model_dump_json()) == recipe
    assert spec.Augment.model_validate_json(json.dumps({"kind": "augment", "recipe": name})) == recipe


def test_what_is_given_wins_over_the_recipe() -> None:
    recipe = recipe_of(recipe="byol", crop_scale_min=0.3, v2={"blur_p": None, "crop_scale_min": 0.5})
    assert (recipe.crop_scale_min, recipe.blur_p, recipe.solarize_p) == (0.3, 1.0, 0.0)
    assert (recipe.of_v2.crop_scale_min, recipe.of_v2.blur_p, recipe.of_v2.solarize_p) == (0.5, 1.0, 0.2)
    assert recipe_of(recipe="byol", v2=None).of_v2.solarize_p == 0


def test_v2_differs_where_it_is_told_to_and_nowhere_else() -> None:
    recipe = IDENTITY | {"v2": {"solarize_p": 1, "solarize_threshold": 0}}
    v1, v2 = augmented(photographs(), **recipe)
    assert_same(v1, photographs(), atol=1e-6)
    assert_same(v2, 1 - photographs(), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"recipe": "simclr2"}, ("recipe",)),
        ({"recipe": ["simclr"]}, ("recipe",)),
        ({"blur_sigma": (2, 1)}, ("blur_sigma",)),
        ({"v2": {"crop_ratio": (0, 1)}}, ("v2", "crop_ratio")),
        ({"v2": {"blur_p": 1.5}}, ("v2", "blur_p")),
        ({"v2": {"recipe": "simclr"}}, ("v2", "recipe")),
        ({"jitter_strengths": (0.8, 0.8, 0.8)}, ("jitter_strengths", 3)),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(given: dict[str, object], where: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        recipe_of(**given)
    assert refused.value.errors()[0]["loc"] == where


def swept(path: str, values: list[object], **parameters: object) -> list[spec.Augment]:
    base = {"dataset": {"name": "digits"}, "views": {"kind": "augment", **parameters}}
    sweep = spec.SweepSpec.model_validate({"base": base, "axis": {"path": path, "values": values}, "seeds": 1})
    found = [experiment.views for _, experiment in spec.expand(sweep)]
    assert all(isinstance(recipe, spec.Augment) for recipe in found)
    return found  # type: ignore[return-value]


def test_a_sweep_moves_both_views_unless_v2_has_a_value_of_its_own() -> None:
    both = swept("views.jitter", [0.5, 2], recipe="simclr")
    assert [(recipe.jitter, recipe.of_v2.jitter) for recipe in both] == [(0.5, 0.5), (2, 2)]
    assert all(recipe.crop_scale_min == 0.08 for recipe in both)
    first = swept("views.blur_p", [0, 0.5], recipe="byol")
    assert [(recipe.blur_p, recipe.of_v2.blur_p) for recipe in first] == [(0, 0.1), (0.5, 0.1)]
    second = swept("views.v2.blur_p", [0, 0.5], recipe="byol")
    assert [(recipe.blur_p, recipe.of_v2.blur_p, recipe.of_v2.solarize_p) for recipe in second] == [(1, 0, 0.2), (1, 0.5, 0.2)]


def test_recipes_are_swept_as_a_whole() -> None:
    whole = [{"kind": "augment", "recipe": name} for name in PUBLISHED]
    assert swept("views", whole) == [recipe_of(recipe=name) for name in PUBLISHED]


@pytest.mark.parametrize(("path", "told"), [("views.recipe", "whole recipes"), ("views.v2.blur_p", "give it there first")])
def test_a_sweep_that_would_not_do_what_it_says_is_refused(path: str, told: str) -> None:
    with pytest.raises(spec.SpecError, match=told) as refused:
        swept(path, [0.1, 0.2])
    assert refused.value.pointer == "/axis/path"
