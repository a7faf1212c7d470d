"""Presets: their sizes, what those cost, and what was published on them."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient

from app import datasets, presets
from app.preset_documents import Size
from app.presets import PAPERS, PRESETS
from ml import spec
from ml.spec import Dataset, DatasetFacts

Json = dict[str, Any]
OF_THE_PAPER = (
    "fig3-patches",
    "fig4-colour-spaces",
    "frequency",
    "fig5-crop",
    "fig5-jitter",
    "table2-moving-mnist",
    "fig7-learned-rgb",
    "fig7-learned-ydbdr",
    "infomin-ablation",
    "six-methods",
)
SIZES: tuple[Size, ...] = get_args(Size)
TWENTY_MINUTES_OF_TWO_WORKERS = 2 * 20 * 60
PUBLISHED = {
    "cifar10": DatasetFacts(name="cifar10", train=50_000, test=10_000, channels=3, image_size=32, classes=10),
    "stl10": DatasetFacts(name="stl10", train=105_000, test=8_000, labelled=5_000, channels=3, image_size=96, classes=10),
    "imagenet": DatasetFacts(name="imagenet", train=1_281_167, test=50_000, channels=3, image_size=224, classes=1000),
    "div2k": DatasetFacts(name="div2k", layout="photos", train=800, test=100, channels=3, image_size=64, smallest_side=648),
    "moving_mnist": DatasetFacts(
        name="moving_mnist",
        layout="scenes",
        train=20_000,
        test=5_000,
        channels=3,
        image_size=64,
        frames=20,
        factors={"digit": 10, "background": 10, "position": None},
        digits="mnist",
        backgrounds="stl10",
    ),
}
# Numbers of the paper that were never read from a source: Moving-MNIST, learned views, CMC on ImageNet, in percent or pixels.
UNREAD = """16.8 88.6 13.6 51.7 16.1 57.9 87.6 3.95 14.5 88.9 13.7 3.4 45.3 0.93
    82.4 84.3 79.9 78.5 86.0 87.0 81.5 86.6 60.0"""


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the paper's datasets lay there, and none other."""
    monkeypatch.setattr(datasets, "first_present", lambda names: next((name for name in names if name in PUBLISHED), names[0]))
    yield
    monkeypatch.undo()


def facts(dataset: Dataset, pointer: str) -> DatasetFacts:
    return PUBLISHED[dataset.name]


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_every_experiment_of_the_paper_can_be_run_in_every_size(name: str, size: Size) -> None:
    sweep = presets.get(name).at(size)
    trainings = [spec.resolve(training, facts) for _, training in spec.expand(sweep)]
    assert len(trainings) >= 4
    assert sweep.preset == f"{name}/{size}"
    assert presets.get(name).differs[size]


@pytest.mark.usefixtures("published")
def test_sizes_grow() -> None:
    def pairs(name: str, size: Size) -> float:
        trainings = [spec.resolve(training, facts) for _, training in spec.expand(presets.get(name).at(size))]
        return sum(
            one.pretrain.total_steps(PUBLISHED[one.dataset.name].train) * (one.pretrain.batch_size or 0) for one in trainings
        )

    for name in OF_THE_PAPER:
        assert pairs(name, "quick") < pairs(name, "standard") < pairs(name, "full") / 4


@pytest.mark.usefixtures("published")
def test_full_sizes_have_the_papers_datasets_and_encoders() -> None:
    def first(name: str) -> spec.ExperimentSpec:
        return spec.resolve(next(spec.expand(presets.get(name).at("full")))[1], facts)

    assert [first(name).dataset.name for name in OF_THE_PAPER] == [
        "div2k",
        *["stl10"] * 4,
        "moving_mnist",
        *["stl10"] * 2,
        *["imagenet"] * 2,
    ]
    infomin = first("infomin-ablation")
    assert (infomin.encoder.kind, infomin.method) == (
        "resnet50",
        spec.InfoMin(kind="infomin", queue=65_536, temperature=0.15, momentum=0.999, jigsaw_weight=0.5, hidden=2048),
    )
    assert first("fig4-colour-spaces").encoder == spec.SmallAlexNet(kind="small_alexnet", width=48)
    moving = first("table2-moving-mnist")
    assert (moving.views.frames, moving.dataset.digits, moving.dataset.backgrounds) == (10, "mnist", "stl10")  # type: ignore[union-attr]
    game = list(spec.expand(presets.get("fig7-learned-rgb").at("full")))[-1][1].views
    assert isinstance(game, spec.Learned)
    assert (game.batch_size, game.labelled_batch_size, game.temperature, game.critic_learning_rate) == (128, 64, 0.07, 2e-4)
    distances = presets.get("fig3-patches").at("full").axis.values
    assert (min(distances), max(distances)) == (64, 384)  # type: ignore[type-var]


def test_the_standard_size_is_what_is_run_unless_asked_otherwise() -> None:
    assert presets.get("fig5-crop").sweep == presets.get("fig5-crop").at("standard")
    assert presets.get("fig5-crop").sweep.base.pretrain == spec.Pretrain(steps=600, batch_size=256)


def test_a_change_is_a_merge_patch() -> None:
    change = {"a": {"b": 1, "c": None}, "d": [3], "e": None, "f": {"g": None, "h": 2}}
    assert presets._merged({"a": {"c": 2, "i": 3}, "d": [1, 2], "e": 4, "j": 5}, change) == {
        "a": {"b": 1, "i": 3},
        "d": [3],
        "f": {"h": 2},
        "j": 5,
    }


def test_quick_sizes_take_minutes_on_two_workers(api: TestClient) -> None:
    found = {preset["name"]: preset for preset in api.get("/v1/catalog/presets").json()["data"]}
    for name in OF_THE_PAPER:
        assert list(found[name]["sizes"]) == list(SIZES)
        quick, standard = (found[name]["sizes"][size] for size in ("quick", "standard"))
        if quick["cost"] is None:
            assert "is not under" in quick["reason"]
            continue
        assert quick["cost"]["seconds"] <= TWENTY_MINUTES_OF_TWO_WORKERS
        if standard["cost"] is not None:  # its dataset may be another one, and not be there
            assert quick["cost"]["seconds"] < standard["cost"]["seconds"]
        assert quick["trainings"] == quick["cost"]["trainings"]
        assert quick["reason"] is None and quick["differs"]
    assert found["table2-moving-mnist"]["sizes"]["quick"]["cost"]  # of which all is made here
    assert list(found["digits-noise"]["sizes"]) == ["standard"]


def test_a_size_whose_dataset_is_not_there_has_no_cost_and_says_why(api: TestClient) -> None:
    (preset,) = [found for found in api.get("/v1/catalog/presets").json()["data"] if found["name"] == "infomin-ablation"]
    full = preset["sizes"]["full"]
    assert (full["cost"], full["trainings"]) == (None, 8)
    assert "'imagenet' is not under" in full["reason"]


def test_a_preset_runs_in_the_size_asked_for_and_the_sweep_remembers_it(api: TestClient) -> None:
    sweep = api.post("/v1/presets/table2-moving-mnist/run", json={"size": "quick"}).json()
    assert (sweep["spec"]["preset"], sweep["counts"]["total"]) == ("table2-moving-mnist/quick", 4)
    assert sweep["spec"]["base"]["pretrain"]["steps"] == 800
    found = api.get(f"/v1/sweeps/{sweep['id']}").json()
    assert found["spec"]["preset"] == "table2-moving-mnist/quick"
    assert found["paper"] == PAPERS["table2-moving-mnist"].model_dump(mode="json")


def test_where_it_came_from_does_not_change_an_experiment(api: TestClient, work: Any) -> None:
    first = api.post("/v1/presets/digits-noise/run", json={}).json()
    work.finish_all(lambda _: (1.0, 0.8))
    resolved = {key: value for key, value in first["spec"].items() if key != "preset"}
    again = api.post("/v1/sweeps", json=resolved).json()
    assert all(member["reused"] for member in again["experiments"])
    assert (first["spec"]["preset"], again["spec"]["preset"], again["paper"]) == ("digits-noise/standard", None, None)


def test_a_dry_run_tells_what_all_sizes_take_and_what_was_published(api: TestClient) -> None:
    answer = api.post("/v1/presets/table2-moving-mnist/run?dry_run=true", json={"size": "quick"}).json()
    assert (answer["size"], list(answer["sizes"])) == ("quick", list(SIZES))
    assert answer["sizes"]["quick"]["cost"]["seconds"] == pytest.approx(answer["cost"]["seconds"], rel=0.01)
    assert answer["paper"]["numbers"] == []
    assert "none was read from a source" in answer["paper"]["note"]


@pytest.mark.parametrize(
    ("name", "size", "pointer", "words"),
    [
        ("digits-noise", "quick", "/size", "digits-noise comes as standard, not quick"),
        ("cifar10-anchors", "full", "/size", "comes as standard, not full"),
        ("fig5-crop", "huge", "/size", "quick"),
        ("infomin-ablation", "full", "/dataset", "'imagenet' is not under"),
    ],
)
def test_a_size_that_cannot_be_run_is_refused(api: TestClient, name: str, size: str, pointer: str, words: str) -> None:
    for dataset in ({}, {"dataset": "imagenet"}):
        answer = api.post(f"/v1/presets/{name}/run", json={"size": size, **dataset})
        (error,) = answer.json()["errors"]
        assert (answer.status_code, error["pointer"]) == (422, pointer)
        assert words in error["message"]


def test_a_size_may_be_run_on_another_dataset(api: TestClient) -> None:
    answer = api.post("/v1/presets/fig5-crop/run?dry_run=true", json={"size": "full", "dataset": "digits"}).json()
    assert (answer["spec"]["base"]["encoder"]["kind"], answer["spec"]["base"]["dataset"]["name"]) == ("small_alexnet", "digits")
    assert answer["sizes"]["full"]["cost"]["seconds"] > answer["sizes"]["quick"]["cost"]["seconds"]


# What was published ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_no_number_is_told_that_was_not_read_from_a_source(name: str) -> None:
    found = presets.paper(name)
    assert found is not None and "2005.10243" in found.source and found.finding
    told = json.dumps(found.model_dump(mode="json"))
    shares = [number.value for number in found.numbers if number.metric == "accuracy"]
    for unread in UNREAD.split():
        assert unread not in told.split()
        assert not any(math.isclose(share, float(unread) / 100) for share in shares)
    if not found.numbers:
        assert found.note is not None and "none was read from a source" in found.note


def test_the_published_numbers() -> None:
    numbers = {name: [number.value for number in found.numbers] for name, found in PAPERS.items() if found.numbers}
    assert numbers == {
        "fig5-crop": [0.2],
        "fig5-jitter": [1.0],
        "infomin-ablation": [0.674, 0.701, 0.730],
        "six-methods": [0.565, 0.606, 0.636, 0.638, 0.693, 0.730],
        "cifar10-anchors": [0.847, 0.838, 0.907, 0.929],
    }


def test_published_numbers_lie_beside_rows_and_tasks_of_the_sweep() -> None:
    for name, found in PAPERS.items():
        sweep = spec.ablated(PRESETS[name].sweep)
        labels = sweep.axis.labels or [spec.in_words(value) for value in sweep.axis.values]
        tasks = {task.name or task.kind for task in sweep.base.tasks}
        for number in found.numbers:
            assert number.label in labels
            assert number.task in {*tasks, None}


# Ablation -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ablate(api: TestClient) -> Callable[..., Json]:
    def ablate(views: Json, path: str = "views", dataset: str = "digits", seeds: int = 2, **parts: Any) -> Json:
        base = {"dataset": {"name": dataset}, "views": views, **parts}
        return dict(api.post("/v1/sweeps", json={"base": base, "axis": {"path": path, "ablate": True}, "seeds": seeds}).json())

    return ablate


def test_an_ablating_sweep_has_its_recipes_as_values(api: TestClient, ablate: Callable[..., Json]) -> None:
    sweep = ablate({"kind": "augment"})
    axis = sweep["spec"]["axis"]
    assert axis["ablate"]
    assert axis["labels"] == ["all of it", "no crop", "no flip", "no jitter"]  # digits are grey, so there is no grayscale
    assert [value["crop_p"] for value in axis["values"]] == [1, 0, 1, 1]
    assert sweep["counts"]["total"] == 8
    again = api.post("/v1/sweeps", json=sweep["spec"]).json()  # as it was resolved
    assert again["spec"] == sweep["spec"]


def test_an_ablation_ends_in_costs(api: TestClient, ablate: Callable[..., Json], work: Any) -> None:
    def measure(spec: Json) -> tuple[float, float]:
        lost = 0.2 * (spec["views"]["crop_p"] == 0) + 0.05 * (spec["views"]["jitter_p"] == 0)
        return 2.0 + 3 * lost, 0.8 - lost + 0.01 * spec["seed"] + 0.001 * lost * spec["seed"]

    sweep = ablate({"kind": "augment"}, seeds=3)
    work.finish_all(measure)
    curve = api.get(f"/v1/sweeps/{sweep['id']}/curve").json()
    found = curve["ablation"]["classification"]
    assert [one["operation"] for one in found] == ["crop", "jitter", "flip"]
    assert [one["cost"]["value"] for one in found] == pytest.approx([0.2, 0.05, 0], abs=0.001)
    assert [one["nats"]["value"] for one in found] == pytest.approx([0.6, 0.15, 0])
    assert curve["ablation_words"]["classification"].startswith("crop is worth most: without it accuracy falls by 0.2")
    head = api.get(f"/v1/sweeps/{sweep['id']}/curve.csv").text.splitlines()[0].split(",")
    assert "classification_cost" in head and "classification_cost_p" in head


@pytest.mark.parametrize(
    ("views", "path", "parts", "pointer", "words"),
    [
        ({"kind": "augment", "crop_p": 0, "flip_p": 0, "jitter": 0}, "views", {}, "/axis/ablate", "no operation"),
        ({"kind": "noise", "sigma": 0}, "views", {}, "/axis/ablate", "no operation that could be left out"),
        ({"kind": "augment"}, "views.jitter", {}, "/axis/path", "the path 'views' or 'base'"),
        ({"kind": "augment"}, "views", {"dataset": "nowhere"}, "/base/dataset/name", "'nowhere' is not under"),
    ],
)
def test_an_ablation_that_cannot_be_is_refused_at_its_field(
    ablate: Callable[..., Json], views: Json, path: str, parts: Json, pointer: str, words: str
) -> None:
    (error,) = ablate(views, path, **parts)["errors"]
    assert error["pointer"] == pointer
    assert words in error["message"]


@pytest.mark.parametrize(
    ("axis", "pointer"),
    [
        ({"path": "views", "ablate": True, "values": [{"kind": "noise"}]}, "/axis"),
        ({"path": "views", "ablate": True, "values": [{"kind": "noise"}], "labels": ["all of it"]}, "/axis/values"),
        ({"path": "views", "ablate": True, "search": {"low": 0, "high": 1}}, "/axis"),
    ],
)
def test_an_ablation_finds_its_values_itself(api: TestClient, spec: Json, axis: Json, pointer: str) -> None:
    answer = api.post("/v1/sweeps", json={"base": spec, "axis": axis})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
