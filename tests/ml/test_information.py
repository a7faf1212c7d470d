"""What a trained experiment says of the information that its views share, where its parts are known."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ml import spec
from ml.datasets import Library, load
from ml.events import Progress, Result
from ml.experiment import run

CPU = torch.device("cpu")
Json = dict[str, Any]


def results(asked: Json, library: Library) -> Json:
    document = spec.ExperimentSpec.model_validate(asked)
    resolved = spec.resolve(document, lambda dataset, _: load(dataset, library, CPU).facts)
    events = list(run(resolved, library, CPU))
    assert isinstance(events[-1], Result)
    told = [(event.step, event.total) for event in events if isinstance(event, Progress) and event.stage == "information"]
    assert {step <= total for step, total in told} == {True} and told[-1][0] == told[-1][1]
    return events[-1].results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Handwritten digits in pairs of one class, which is all that the two share, and in pairs of nothing in common."""
    folder = tmp_path_factory.mktemp("pairs")
    images, labels = load_digits(return_X_y=True)
    pixels = np.kron((images.reshape(-1, 8, 8) * 15.9).astype(np.uint8), np.ones((1, 2, 2), np.uint8))
    chances = np.random.default_rng(0)
    held_out = chances.permutation(len(labels)) < 720

    def partners(items: Any) -> Any:
        """For each item another of its class."""
        order = np.argsort(labels[items], kind="stable")
        mixed = np.concatenate([chances.permutation(order[labels[items][order] == label]) for label in range(10)])
        found = np.empty(len(items), int)
        found[order] = items[mixed]
        return found

    train, test = (np.flatnonzero(part) for part in (~held_out, held_out))
    many = np.tile(train, 12)  # each in a dozen pairs, that none is learned by heart
    v1 = np.concatenate((many, test))
    v2 = np.concatenate((*(partners(train) for _ in range(12)), partners(test)))
    split = np.array(["train"] * len(many) + ["test"] * len(test))
    np.savez(folder / "same-class.npz", v1=pixels[v1], v2=pixels[v2], y=labels[v1], split=split)
    np.savez(folder / "nothing.npz", v1=pixels[test], v2=pixels[chances.permutation(test)], y=labels[test])
    return Library(folder, folder, folder)


def paired(name: str) -> Json:
    return {
        "dataset": {"name": name},
        "views": {"kind": "paired"},
        "encoder": {"kind": "small_conv", "width": 16},
        "pretrain": {"steps": 400, "batch_size": 256},
        "mi": {"estimators": ["infonce", "cca", "leave_one_out"], "k": 512},
        "tasks": [{"kind": "classification"}],
    }


@pytest.fixture(scope="module")
def same_class(folder: Library) -> Json:
    return results(paired("same-class"), folder)


def test_views_of_one_class_share_the_class(same_class: Json) -> None:
    """log 10 = 2.303 at most, of which the optimal critic reads 2.294 among 512; an encoder of some hundred digits less."""
    total = same_class["mi"]["infonce"]
    assert 1.6 <= total["value"] <= 2.31
    assert total["value"] <= math.log(10) + 3 * total["stderr"]
    assert (total["log_k"], total["saturated"]) == (math.log(512), False)
    assert same_class["information"]["total"] == total


def test_and_nothing_else(same_class: Json) -> None:
    """I(v1; v2 | y) = 0, so that all they share is the task part: the chain rule."""
    found = same_class["information"]
    assert abs(found["nuisance"]["value"]) <= 0.05 + 3 * found["nuisance"]["stderr"]
    assert found["task"]["value"] == pytest.approx(found["total"]["value"] - found["nuisance"]["value"])
    assert found["task"]["stderr"] > 0
    assert (found["target"], found["classes"], found["by_target"]) == ("label", 10, {})


def test_each_view_tells_the_class_and_misses_nothing_of_it(same_class: Json) -> None:
    probe, missing = same_class["information"]["probe"], same_class["information"]["missing"]
    assert probe["entropy"] == pytest.approx(math.log(10), abs=0.03)  # the held-out classes are not quite even
    for name in ("v1", "v2", "both"):
        assert 1.5 < probe[name]["value"] <= probe["entropy"]
    assert probe["both"]["value"] > max(probe["v1"]["value"], probe["v2"]["value"])
    assert missing["x"]["value"] > 1.5 and missing["accuracy"] > 0.8
    for name in ("missing_v1", "missing_v2"):
        assert missing[name]["value"] <= 0.3  # x is both digits, and two digits of one class tell it better than one


def test_what_is_read_of_embeddings_bounds_the_views_from_below_alone(same_class: Json) -> None:
    mi = same_class["mi"]
    assert set(mi) == {"infonce", "leave_one_out", "cca"}
    assert mi["leave_one_out"]["kind"] == "neither"
    assert all(math.isfinite(its["value"]) and math.isfinite(its["stderr"]) for its in mi.values())


def test_views_that_share_nothing_read_nothing(folder: Library) -> None:
    found = results(paired("nothing") | {"mi": {"k": 128}}, folder)
    for part in ("total", "nuisance", "task"):
        its = found["information"][part]
        assert abs(its["value"]) <= 0.02 + 3 * its["stderr"], part


def test_noise_that_hides_the_class_is_missing_information() -> None:
    """Digits under noise that leaves little of them: I(v; y) falls short of I(x; y), and the constraint does not hold."""
    library = Library(*(Path("no-datasets"),) * 3)
    asked = {
        "dataset": {"name": "digits"},
        "encoder": {"kind": "small_conv", "width": 8},
        "pretrain": {"steps": 400, "batch_size": 128},
        "mi": {"k": 128},
        "tasks": [{"kind": "knn"}],
    }
    clear, noisy = (results(asked | {"views": {"kind": "noise", "sigma": s}}, library)["information"] for s in (0.0, 1.5))
    assert clear["missing"]["holds"]
    assert abs(clear["missing"]["missing_v1"]["value"]) < 0.05
    assert not noisy["missing"]["holds"]
    assert noisy["missing"]["missing_v1"]["value"] > 0.3
    assert noisy["probe"]["v1"]["value"] < clear["probe"]["v1"]["value"] - 0.3
    assert clear["nuisance"]["value"] > noisy["nuisance"]["value"]
