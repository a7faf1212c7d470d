"""`GET /v1/sweeps/{id}/recipe`: the winning recipe as code, whose pixels are those of the workers' own views.

Both make views of the same photographs; what is compared are means over many draws, and they may differ by 4.5 standard errors
of their difference, or by a thousandth of a pixel's range where nothing is left to chance.
"""

import ast
import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import TypeAdapter
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import Generator, Tensor

from app import recipes
from app.errors import Invalid
from app.recipes import Provenance, Recipe, RecipeFormat
from app.settings import settings
from ml import spec, takeaway, views
from ml.datasets import photographs
from ml.datasets.clips import Clips
from ml.datasets.split import Pixels
from ml.datasets.squares import square

Json = dict[str, Any]
SIDE, DRAWS = 32, 800
MOST = 4.5  # standard errors
LEAST = 1e-3
FACTS = spec.DatasetFacts(name="photographs", train=100, test=50, channels=3, image_size=SIDE, classes=10)
SIGMAS = [0.1, 0.2, 0.4, 0.7, 1.0, 1.6, 2.5]
ACCURACIES = [0.73, 0.78, 0.83, 0.86, 0.84, 0.82, 0.75]
NATS = [6.19, 5.98, 4.73, 2.64, 1.39, 0.36, 0.02]
lightly_is_there = pytest.mark.skipif(find_spec("lightly") is None, reason="lightly is not installed")


# Code that runs, and its pixels


def made_for(recipe: Json, form: str = "torchvision", facts: spec.DatasetFacts | None = FACTS, **parts: Any) -> str:
    """The code of a recipe, as if a sweep over it had been won."""
    given = {"dataset": {"name": "digits", "image_size": SIDE}, "views": recipe, **parts}
    resolved = spec.ExperimentSpec.model_validate(given)
    generator = takeaway.view_generator(resolved) if recipe["kind"] == "learned" else None
    won = Provenance(
        sweep=f"swp_{'0' * 32}",
        name='a \\ name """ in quotes\n',
        experiment=f"exp_{'1' * 32}",
        path="views",
        value=recipe,
        label=spec.in_words(recipe),
        task="classification",
        sweet_spot=True,
        words="inverted U: the peak is at sigma 0.7, 2.64 nats",
        i_nce=2.64,
        i_nce_ci=(2.6, 2.68),
        saturated=False,
        metric="accuracy",
        score=0.86,
        score_ci=(0.85, 0.87),
        seeds=3,
    )
    return recipes.code(Recipe(spec=resolved, provenance=won), RecipeFormat(form), facts, generator, "http://127.0.0.1:8000")


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], ModuleType]:
    """Imports code as a module out of a file of its own."""
    numbers = count()

    def load(code: str) -> ModuleType:
        path = tmp_path / f"recipe_{next(numbers)}.py"
        path.write_text(code)
        found = importlib.util.spec_from_file_location(path.stem, path)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Pieces of scikit-learn's two photographs, uint8 [N, 3, 32, 32]; every one is brighter to the right than to the left."""
    chance = np.random.default_rng(0)
    pieces: list[Tensor] = []
    photos = [torch.from_numpy(photo.copy()).permute(2, 0, 1) for photo in load_sample_images().images]
    while len(pieces) < DRAWS:
        photo = photos[len(pieces) % 2]
        top, left = (int(chance.integers(size - 2 * SIDE)) for size in photo.shape[1:])
        piece = photo[:, top : top + 2 * SIDE : 2, left : left + 2 * SIDE : 2]
        grey = piece.float().mean(dim=0)
        pieces.append(piece if grey[:, SIDE // 2 :].mean() > grey[:, : SIDE // 2].mean() else piece.flip(2))
    return torch.stack(pieces)


def statistics(v1: Tensor, v2: Tensor) -> dict[str, Tensor]:
    """Of each pair: means, deviations, gradients, colours, whether grey and whether mirrored of both, and their correlation."""
    found = {}
    for name, view in (("v1", v1), ("v2", v2)):
        for channel in range(view.shape[1]):
            found[f"{name} mean {channel}"] = view[:, channel].mean(dim=(1, 2))
            found[f"{name} deviation {channel}"] = view[:, channel].flatten(1).std(dim=1)
        across, down = (view.diff(dim=dim).abs().mean(dim=(1, 2, 3)) for dim in (3, 2))
        found |= {f"{name} gradient across": across, f"{name} gradient down": down}
        found[f"{name} sharpness"] = view.diff(n=2, dim=3).abs().mean(dim=(1, 2, 3)) / (across + 1e-3)
        found[f"{name} tone"] = (view.mean(dim=(1, 2, 3)) - 0.4) ** 2  # how far apart the means are
        found[f"{name} contrast"] = (view.flatten(1).std(dim=1) + 0.02).log() ** 2
        found[f"{name} saturation"] = (view.amax(dim=1) - view.amin(dim=1)).mean(dim=(1, 2))
        found[f"{name} extremes"] = ((view < 0.02) | (view > 0.98)).float().mean(dim=(1, 2, 3))
        found[f"{name} brightest"] = view.flatten(1).amax(dim=1)
        found[f"{name} grey"] = ((view - view.mean(dim=1, keepdim=True)).abs().amax(dim=(1, 2, 3)) < 1e-3).float()
        half = view.shape[3] // 2
        found[f"{name} mirrored"] = (view[..., :half].mean(dim=(1, 2, 3)) > view[..., half:].mean(dim=(1, 2, 3))).float()
        found[f"{name} black"] = (view.abs().amax(dim=1) < 1e-6).float().mean(dim=(1, 2))
    one, other = (view.mean(dim=1).flatten(1) for view in (v1, v2))
    one, other = (each - each.mean(dim=1, keepdim=True) for each in (one, other))
    lengths = (one.norm(dim=1) * other.norm(dim=1)).clamp(min=1e-6)
    found["correlation"] = (one * other).sum(dim=1) / lengths
    return found


def compare(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """Pairs are of the same images, so that the error is that of the mean difference between them."""
    assert [view.shape for view in theirs] == [view.shape for view in ours]
    mine, yours = statistics(*ours), statistics(*theirs)
    for name, values in mine.items():
        differences = (values - yours[name]).double()
        error = float(differences.std() / math.sqrt(len(differences)))
        scale = max(1.0, float(values.abs().mean()))
        assert abs(float(differences.mean())) <= MOST * error + LEAST * scale, (
            name,
            float(values.mean()),
            float(yours[name].mean()),
        )


def drawn(make: Callable[[Any], Any], items: Any) -> tuple[Tensor, Tensor]:
    """The two views of each item, one item after the other."""
    torch.manual_seed(1)
    first, second = zip(*(make(item) for item in items), strict=True)
    return torch.stack(first), torch.stack(second)


def of_ours(recipe: Json, images: Tensor) -> tuple[Tensor, Tensor]:
    parsed: Any = TypeAdapter(spec.Views).validate_python(recipe)
    return views.make(parsed, images.float() / 255, Generator().manual_seed(0))


EVERYTHING = {
    "crop_p": 0.8,
    "crop_scale_min": 0.1,
    "crop_ratio": [0.5, 2.5],
    "rotate_p": 0.5,
    "rotate_degrees": 45,
    "jitter": 0.7,
    "blur_p": 0.5,
    "grayscale_p": 0.3,
    "solarize_p": 0.3,
    "solarize_threshold": 0.4,
    "cutout_p": 0.5,
    "cutout_share": 0.4,
}
NOTHING = {"crop_p": 0, "flip_p": 0, "jitter_p": 0, "grayscale_p": 0}
CHANCES: list[Json] = [
    {"kind": "noise", "sigma": 0},
    {"kind": "noise", "sigma": 0.4},
    {"kind": "crop", "area": 0.05},
    {"kind": "crop", "area": 0.5},
    {"kind": "crop", "area": 1},
    {"kind": "augment"},
    {"kind": "augment", "recipe": "simclr"},
    {"kind": "augment", "recipe": "infomin"},
    {"kind": "augment", "recipe": "byol"},
    {"kind": "augment", **EVERYTHING},
    {"kind": "augment", **NOTHING},
    {"kind": "augment", **NOTHING, "flip_p": 1},
    {"kind": "augment", "crop_scale_min": 1, "jitter": 2.5, "jitter_p": 1, "grayscale_p": 1, "flip_p": 0.25},
    {"kind": "augment", **NOTHING, "randaugment_n": 1, "randaugment_m": 30},
    {"kind": "augment", **NOTHING, "randaugment_n": 3, "randaugment_m": 5, "randaugment_p": 0.5},
    {"kind": "augment", **NOTHING, "cutout_p": 1, "cutout_share": 1, "v2": {"cutout_share": 0.1, "blur_p": 1}},
    {"kind": "color_split", "space": "lab", "before": {"kind": "augment", "jitter": 0.3}},
    {"kind": "frequency", "sigma": 1.5, "before": {"kind": "augment", "jitter": 0}},
]


def label(recipe: Json) -> str:
    return spec.in_words({key: value for key, value in recipe.items() if key != "before"})


@pytest.mark.parametrize("recipe", CHANCES, ids=label)
def test_code_for_torchvision_makes_the_views_of_the_sweep(
    load: Callable[[str], ModuleType], images: Tensor, recipe: Json
) -> None:
    module = load(made_for(recipe))
    compare(of_ours(recipe, images), drawn(module.two_views, images))


@pytest.mark.parametrize(
    "other",
    [{"jitter": 0.6}, {"blur_p": 0.2}, {"flip_p": 0.25}, {"grayscale_p": 0.05}, {"crop_scale_min": 0.4}, {"solarize_p": 0.2}],
    ids=label,
)
def test_the_comparison_tells_other_recipes_apart(load: Callable[[str], ModuleType], images: Tensor, other: Json) -> None:
    recipe = {"kind": "augment", "recipe": "simclr"}
    module = load(made_for(recipe | other))
    with pytest.raises(AssertionError):
        compare(of_ours(recipe, images), drawn(module.two_views, images))


@lightly_is_there
@pytest.mark.parametrize(
    "recipe",
    [
        {"kind": "noise", "sigma": 0.4},
        {"kind": "crop", "area": 0.3},
        {"kind": "augment", "recipe": "infomin"},
        {"kind": "augment", "recipe": "byol"},
        {"kind": "color_split", "space": "hsv", "before": {"kind": "augment", "jitter": 0}},
    ],
    ids=label,
)
def test_code_for_lightly_makes_the_views_of_the_sweep(load: Callable[[str], ModuleType], images: Tensor, recipe: Json) -> None:
    from lightly.transforms.multi_view_transform import MultiViewTransform  # noqa: PLC0415

    module = load(made_for(recipe, "lightly"))
    assert isinstance(module.transform, MultiViewTransform)
    compare(of_ours(recipe, images), drawn(module.transform, images))


SPACES = get_args(spec.ColorSpace)
SURE: list[Json] = [
    *({"kind": "color_split", "space": space, "first": index % 3} for index, space in enumerate(SPACES)),
    *({"kind": "frequency", "sigma": sigma} for sigma in (0.05, 0.7, 3, 100)),
]


@pytest.mark.parametrize("recipe", SURE, ids=label)
def test_views_without_chance_are_the_same_pixel_for_pixel(
    load: Callable[[str], ModuleType], images: Tensor, recipe: Json
) -> None:
    module = load(made_for(recipe))
    few = images[:50]
    for ours, theirs in zip(of_ours(recipe, few), drawn(module.two_views, few), strict=True):
        scale = max(1.0, float(ours.abs().max()))
        torch.testing.assert_close(theirs / scale, ours / scale, atol=2e-5, rtol=0)


@pytest.mark.parametrize("extreme", [0, 255])
@pytest.mark.parametrize("space", SPACES)
def test_black_and_white_have_colours_as_well(load: Callable[[str], ModuleType], extreme: int, space: str) -> None:
    recipe = {"kind": "color_split", "space": space}
    image = torch.full((1, 3, SIDE, SIDE), extreme, dtype=torch.uint8)
    for ours, theirs in zip(of_ours(recipe, image), drawn(load(made_for(recipe)).two_views, image), strict=True):
        torch.testing.assert_close(theirs, ours, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
def test_images_without_colours_keep_their_channels(load: Callable[[str], ModuleType], images: Tensor, channels: int) -> None:
    recipe = {"kind": "augment", **EVERYTHING, "jitter": 0.8 if channels == 1 else 0, "grayscale_p": 0}
    few = images[:, :channels]
    module = load(made_for(recipe, facts=FACTS.model_copy(update={"channels": channels})))
    compare(of_ours(recipe, few), drawn(module.two_views, few))


@pytest.mark.parametrize("before", [None, {"kind": "augment", "jitter": 0}], ids=["plain", "augmented"])
@pytest.mark.parametrize(("size", "stride"), [(8, 8), (16, 8), (9, 5)])
def test_patches_of_a_grid_stand_in_one_column(
    load: Callable[[str], ModuleType], images: Tensor, size: int, stride: int, before: Json | None
) -> None:
    recipe = {"kind": "patch_grid", "size": size, "stride": stride, "before": before}
    module = load(made_for(recipe))
    compare(of_ours(recipe, images), drawn(module.two_views, images))
    if before is None:
        where = torch.arange(SIDE * SIDE).view(1, SIDE, SIDE).expand(3, -1, -1).to(torch.int32)
        module.load = lambda image: image  # so that a pixel tells its place
        corners = [[int(view[0, 0, 0]) for view in module.two_views(where)] for _ in range(300)]
        rows, columns = np.divmod(np.array(corners), SIDE)
        assert (columns[:, 0] == columns[:, 1]).all() and (rows[:, 1] > rows[:, 0]).all()
        assert set(columns[:, 0]) == set(range(0, SIDE - size + 1, stride))


@pytest.mark.parametrize("layout", ["photos", "images"])
@pytest.mark.parametrize(("size", "distance"), [(8, 0), (8, 16), (4, 28)])
def test_patches_lie_apart_up_to_the_edges(
    load: Callable[[str], ModuleType], images: Tensor, size: int, distance: int, layout: str
) -> None:
    recipe: Any = spec.Patches(kind="patches", size=size, distance=distance)
    code = made_for(recipe.model_dump(), facts=FACTS.model_copy(update={"layout": layout}))
    split = photographs.of_images(images, (0.0, 255.0), torch.device("cpu"))
    ours = views.make(recipe, split.take(torch.arange(DRAWS)), Generator().manual_seed(0))
    compare(ours, drawn(load(code).two_views, images))
    small = images[0, :, : size + distance - 1]
    if layout == "photos":
        with pytest.raises(ValueError, match=f"both patches need {size + distance} pixels"):
            load(code).two_views(small)
    else:
        assert load(code).two_views(small)[0].shape == (3, size, size)  # for images are resized first


def test_frames_of_a_clip_are_apart(load: Callable[[str], ModuleType], images: Tensor) -> None:
    recipe: Any = spec.Temporal(kind="temporal", gap=3)
    clips = images[: DRAWS - DRAWS % 8].view(-1, 8, 3, SIDE, SIDE)
    module = load(made_for(recipe.model_dump()))
    ours = views.make(recipe, Clips(Pixels(clips, (0.0, 255.0), torch.device("cpu")), torch.arange(len(clips))), Generator())
    compare(ours, drawn(module.two_views, clips))
    numbered = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(-1, 3, SIDE, SIDE)
    pairs = {tuple(round(255 * float(view.mean())) for view in module.two_views(numbered)) for _ in range(200)}
    assert pairs == {(time, time + 3) for time in range(5)}


def test_pairs_of_ones_own_stay_as_they_are(load: Callable[[str], ModuleType], images: Tensor) -> None:
    first, second = load(made_for({"kind": "paired"})).two_views(images[0], images[1, :1, :8])
    torch.testing.assert_close(first, images[0] / 255)
    torch.testing.assert_close(second, images[1, :1, :8] / 255)


@pytest.mark.parametrize("flow", ["volume_preserving", "non_volume_preserving"])
@pytest.mark.parametrize("base_space", ["rgb", "ydbdr"])
@pytest.mark.parametrize("form", ["torchvision", pytest.param("lightly", marks=lightly_is_there)])
def test_learned_views_bring_their_generator_along(
    load: Callable[[str], ModuleType],
    images: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flow: str,
    base_space: str,
    form: str,
) -> None:
    recipe = {"kind": "learned", "flow": flow, "base_space": base_space}
    given = spec.ExperimentSpec.model_validate({"dataset": {"name": "digits", "image_size": SIDE}, "views": recipe})
    map_of = load(takeaway.view_generator(given)).ViewGenerator()
    torch.manual_seed(0)
    for weight in map_of.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    save_file(map_of.state_dict(), tmp_path / "view_generator.safetensors")
    monkeypatch.chdir(tmp_path)
    code = made_for(recipe, form)
    module = load(code)
    make = module.transform if form == "lightly" else module.two_views
    first, second = make(images[0])
    expected = map_of(images[:1].float() / 255)[0]
    torch.testing.assert_close(first, expected[:1])
    torch.testing.assert_close(second, expected[1:])
    assert f"curl -O http://127.0.0.1:8000/v1/experiments/exp_{'1' * 32}/artifacts/view_generator.safetensors" in code


def test_pictures_of_any_size_and_mode_become_squares(load: Callable[[str], ModuleType], images: Tensor) -> None:
    module = load(made_for({"kind": "noise", "sigma": 0}))
    picture = Image.fromarray(load_sample_images().images[0])
    for part in (picture.crop((0, 0, 427, 427)), picture.crop((0, 0, 640, 320))):
        pixels = torch.from_numpy(np.array(part)).permute(2, 0, 1)
        expected = square(pixels[None].float(), SIDE)[0] / 255
        assert (module.two_views(part)[0] - expected).abs().max() < 1 / 255  # bytes are rounded
    assert module.two_views(picture.convert("L"))[0].shape == (3, SIDE, SIDE)
    grey = load(made_for({"kind": "noise", "sigma": 0}, facts=FACTS.model_copy(update={"channels": 1})))
    assert grey.two_views(picture)[0].shape == (1, SIDE, SIDE)


# How the code reads

FORMS = [(recipe, form) for recipe in [*CHANCES, *SURE] for form in ("torchvision", "lightly")]
FORMS += [
    ({"kind": "learned"}, "torchvision"),
    ({"kind": "learned", "flow": "non_volume_preserving", "before": {"kind": "augment"}}, "lightly"),
    ({"kind": "patches", "size": 8, "distance": 8}, "torchvision"),
    ({"kind": "patch_grid", "size": 8, "stride": 8, "before": {"kind": "augment", "cutout_p": 0.5}}, "torchvision"),
    ({"kind": "temporal", "gap": 2}, "torchvision"),
    ({"kind": "paired"}, "torchvision"),
    (
        {"kind": "augment", "crop_scale_min": 0.123456789012345, "crop_ratio": [0.512345678901234, 2.01234567890123]},
        "torchvision",
    ),
]


def test_code_is_formatted_in_order_and_needs_nothing_of_ours(tmp_path: Path) -> None:
    for number, (recipe, form) in enumerate(FORMS):
        code = made_for(recipe, form)
        (tmp_path / f"recipe_{number}.py").write_text(code)
        parsed = ast.parse(code)
        assert "inverted U: the peak is at sigma 0.7, 2.64 nats" in " ".join((ast.get_docstring(parsed) or "").split())
        imported = {(getattr(node, "module", None) or node.names[0].name).split(".")[0] for node in ast.walk(parsed)
                    if isinstance(node, ast.Import | ast.ImportFrom)}  # fmt: skip
        assert imported <= {"torch", "torchvision", "math", *({"lightly"} if form == "lightly" else set()),
                            *({"collections", "safetensors"} if recipe["kind"] == "learned" else set())}  # fmt: skip
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["format", "--check"], ["check", "--select", "E,F,I,B,UP", "--ignore", "E501"]):
        done = subprocess.run(
            [*ruff, *command, "--isolated", "--line-length", "100", str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("form", ["torchvision", pytest.param("lightly", marks=lightly_is_there)])
def test_the_file_runs_as_it_is(tmp_path: Path, form: str) -> None:
    path = tmp_path / "recipe.py"
    path.write_text(made_for({"kind": "augment", "recipe": "infomin"}, form))
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, env=alone, capture_output=True, text=True, check=True)
    assert done.stdout == "torch.Size([3, 32, 32]) torch.Size([3, 32, 32])\n"


@pytest.mark.parametrize(
    ("recipe", "form", "channels", "words"),
    [
        ({"kind": "factors"}, "torchvision", 3, "choose json"),
        ({"kind": "factors"}, "lightly", 3, "choose json"),
        ({"kind": "patches"}, "lightly", 3, "choose torchvision or json"),
        ({"kind": "patch_grid"}, "lightly", 3, "choose torchvision or json"),
        ({"kind": "temporal"}, "lightly", 3, "choose torchvision or json"),
        ({"kind": "paired"}, "lightly", 3, "choose torchvision or json"),
        ({"kind": "augment"}, "torchvision", 5, "these images have 5"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else str(value),
)
def test_what_a_format_cannot_say_is_refused_with_one_that_can(recipe: Json, form: str, channels: int, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        made_for(recipe, form, facts=FACTS.model_copy(update={"channels": channels}))
    assert refused.value.errors[0].pointer == "query/format"
    assert words in refused.value.detail


# What the service answers


@pytest.fixture
def sweep(api: TestClient, spec: Json) -> Callable[..., str]:
    def sweep(seeds: int = 3, **fields: Any) -> str:
        axis = {"path": "views.sigma", "values": SIGMAS}
        answer = api.post("/v1/sweeps", json={"name": "noise", "base": spec | fields, "axis": axis, "seeds": seeds})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    return sweep


def measure(spec: Json) -> tuple[float, float]:
    index, seed = SIGMAS.index(spec["views"]["sigma"]), spec["seed"]
    return NATS[index] + 0.01 * (seed - 1), ACCURACIES[index] + 0.011 * (seed - 1)


def recipe_of(api: TestClient, sweep: str, **query: str) -> Any:
    return api.get(f"/v1/sweeps/{sweep}/recipe", params=query)


def test_the_recipe_is_that_of_the_sweet_spot(api: TestClient, sweep: Callable[..., str], work: Any) -> None:
    made = sweep()
    work.finish_all(measure)
    answer = recipe_of(api, made)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/x-python; charset=utf-8")
    assert "v2.GaussianNoise(sigma=0.7, clip=False)" in answer.text
    verdict = api.get(f"/v1/sweeps/{made}/curve.json").json()["verdicts"]["classification"]
    words = " ".join((ast.get_docstring(ast.parse(answer.text)) or "").split())
    assert verdict["words"] in words and "the sweet spot of classification" in words
    assert f"Sweep {made} (noise)" in words and "I_NCE is 2.64" in words and "no sweet spot" not in words
    links = api.get(f"/v1/sweeps/{made}").json()["links"]
    assert links["recipe"] == f"/v1/sweeps/{made}/recipe"


def test_as_json_it_is_a_spec_to_post_again(api: TestClient, sweep: Callable[..., str], work: Any) -> None:
    made = sweep(method={"kind": "moco"}, seed=5)
    work.finish_all(lambda spec: measure(spec | {"seed": spec["seed"] - 5}))
    found = recipe_of(api, made, format="json").json()
    provenance = found["provenance"]
    curve = api.get(f"/v1/sweeps/{made}/curve.json").json()
    point = next(point for point in curve["points"] if point["value"] == 0.7)
    assert (provenance["value"], provenance["sweet_spot"], provenance["task"]) == (0.7, True, "classification")
    assert (provenance["i_nce"], provenance["score"]) == (point["i_nce"], point["tasks"]["classification"]["value"])
    assert provenance["words"] == curve["verdicts"]["classification"]["words"]
    assert provenance["experiment"] == point["experiments"][0]
    again = api.post("/v1/experiments?dry_run=true", json=found["spec"])
    assert again.status_code == 200, again.text
    assert again.json()["spec"] == found["spec"] == api.get(f"/v1/experiments/{provenance['experiment']}").json()["spec"]
    assert (found["spec"]["views"], found["spec"]["seed"]) == ({"kind": "noise", "sigma": 0.7}, 5)


def test_without_a_sweet_spot_the_best_is_taken_and_the_text_says_so(
    api: TestClient, sweep: Callable[..., str], work: Any
) -> None:
    made = sweep(seeds=1)
    for accuracy in (0.7, 0.9, 0.8):
        work.succeed(work.claimed(), 2.0, accuracy)
    text = recipe_of(api, made).text
    assert "v2.GaussianNoise(sigma=0.2, clip=False)" in text
    words = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
    verdict = api.get(f"/v1/sweeps/{made}/curve.json").json()["verdicts"]["classification"]["words"]
    assert verdict.startswith("unclear")
    assert f"The verdict: {verdict}. No sweet spot is established: this is the best so far." in words
    assert not recipe_of(api, made, format="json").json()["provenance"]["sweet_spot"]


def test_any_task_may_choose(api: TestClient, sweep: Callable[..., str], work: Any) -> None:
    made = sweep(tasks=[{"kind": "classification"}, {"kind": "knn"}])
    work.finish_all(measure)
    assert recipe_of(api, made, task="knn", format="json").json()["provenance"]["task"] == "knn"
    assert recipe_of(api, made, format="json").json()["provenance"]["task"] == "classification"
    refused = recipe_of(api, made, task="position")
    assert refused.status_code == 422
    assert refused.json()["errors"] == [{"pointer": "query/task", "message": "classification or knn, not 'position'"}]


def test_while_nothing_is_finished_there_is_no_recipe(api: TestClient, sweep: Callable[..., str], work: Any) -> None:
    made = sweep()
    for format in ("torchvision", "json"):
        answer = recipe_of(api, made, format=format)
        assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
        assert (answer.json()["state"], answer.json()["detail"]) == (
            "queued",
            "none of its experiments has finished yet, so no recipe has won: the sweep is queued",
        )


def test_without_a_task_no_recipe_wins(api: TestClient, sweep: Callable[..., str], work: Any) -> None:
    made = sweep(tasks=[])
    work.finish_all(measure)
    answer = recipe_of(api, made)
    assert answer.status_code == 422
    assert "no task" in answer.json()["detail"]


def test_formats_that_there_are(api: TestClient, sweep: Callable[..., str], work: Any) -> None:
    made = sweep()
    work.finish_all(measure)
    assert recipe_of(api, made, format="lightly").status_code == 200
    refused = recipe_of(api, made, format="keras")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "query/format"
    assert recipe_of(api, f"swp_{'0' * 32}").status_code == 404


def test_learned_views_come_with_the_code_that_the_experiment_left(own_colours: str, api: TestClient, work: Any) -> None:
    base = {
        "dataset": {"name": own_colours},
        "views": {"kind": "learned", "mode": "unsupervised"},
        "tasks": [{"kind": "classification"}],
    }
    axis = {"path": "views.hidden", "values": [8, 16]}
    made = api.post("/v1/sweeps", json={"base": base, "axis": axis, "seeds": 1}).json()["id"]
    for accuracy in (0.5, 0.8):
        claim = work.claimed()
        loader = takeaway.view_generator(spec.ExperimentSpec.model_validate(claim.spec))
        work.succeed(claim, 2.0, accuracy, artifacts={"view_generator.py": loader.encode()} if accuracy > 0.6 else {})
    text = recipe_of(api, made).text
    assert "nn.Linear(channels, 16)" in text
    experiment = api.get(f"/v1/sweeps/{made}").json()["experiments"][1]["id"]
    assert f"curl -O http://127.0.0.1:8000/v1/experiments/{experiment}/artifacts/view_generator.safetensors" in text


@pytest.fixture
def own_colours(embedded: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The name of an npz of colour images in the folder of datasets."""
    monkeypatch.setenv("SWEETSPOT_DATASETS", str(tmp_path))
    settings.cache_clear()
    chance = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=chance.integers(256, size=(200, 16, 16, 3), dtype=np.uint8), y=np.arange(200) % 10)
    yield "mine"
    monkeypatch.undo()
    settings.cache_clear()
