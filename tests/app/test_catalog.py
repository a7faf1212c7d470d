"""`/v1/catalog`: what can be asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from app.settings import settings
from ml import spec

SORTS = ["views", "datasets", "methods", "encoders", "tasks", "estimators", "presets"]


@pytest.mark.parametrize("sort", SORTS)
def test_everything_has_a_name_a_description_and_a_schema(sort: str, api: TestClient) -> None:
    answer = api.get(f"/v1/catalog/{sort}")
    assert answer.status_code == 200
    for variant in answer.json()["data"]:
        assert variant["name"] and variant["description"]
        Draft202012Validator.check_schema(variant["schema"])
    assert answer.json()["data"]


@pytest.mark.parametrize(("sort", "name"), [("views", "noise"), ("views", "augment"), ("views", "crop"), ("methods", "simclr")])
def test_its_own_schema_accepts_a_variant(sort: str, name: str, api: TestClient) -> None:
    (variant,) = [found for found in api.get(f"/v1/catalog/{sort}").json()["data"] if found["name"] == name]
    schema = Draft202012Validator(variant["schema"])
    assert schema.is_valid({"kind": name})
    assert not schema.is_valid({"kind": name, "surprise": 1})


FITTING: dict[str, dict[str, Any]] = {
    "color_split": {"dataset": {"name": "colourful"}},
    "learned": {"dataset": {"name": "colourful"}},
    "paired": {"dataset": {"name": "sensors"}},
    "patches": {"dataset": {"name": "colourful", "image_size": 128}},
    "patch_grid": {"dataset": {"name": "colourful"}},
    "temporal": {"dataset": {"name": "moving_mnist"}, "tasks": []},
    "factors": {"dataset": {"name": "moving_mnist"}, "encoder": {"kind": "conv_lstm"}, "tasks": []},
    "localization": {"dataset": {"name": "moving_mnist"}, "views": {"kind": "temporal"}},
    "cmc": {"dataset": {"name": "colourful"}, "views": {"kind": "color_split"}},
    "cpc": {"dataset": {"name": "colourful"}, "views": {"kind": "patch_grid"}},
    "pirl": {"dataset": {"name": "colourful"}, "views": {"kind": "augment"}},
    "infomin": {"dataset": {"name": "colourful"}, "views": {"kind": "augment"}},
}  # where noise on digits will not do


@pytest.fixture
def datasets_of_all_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pixels = np.zeros((60, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "colourful.npz", x=pixels, y=np.arange(60) % 2)
    np.savez(tmp_path / "sensors.npz", v1=pixels, v2=pixels[..., :1], y=np.arange(60) % 2)
    monkeypatch.setenv("SWEETSPOT_DATASETS", str(tmp_path))
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.mark.usefixtures("datasets_of_all_layouts")
@pytest.mark.parametrize("sort", ["views", "methods", "encoders", "tasks"])
def test_what_it_names_can_be_submitted(sort: str, api: TestClient) -> None:
    for variant in api.get(f"/v1/catalog/{sort}").json()["data"]:
        part = {"kind": variant["name"]}
        field = {"views": {"views": part}, "methods": {"method": part}, "encoders": {"encoder": part}, "tasks": {"tasks": [part]}}
        asked = {"dataset": {"name": "digits"}, "views": {"kind": "noise"}, **FITTING.get(variant["name"], {}), **field[sort]}
        answer = api.post("/v1/experiments?dry_run=true", json=asked)
        assert answer.status_code == 200, answer.text
        assert answer.json()["cost"]["seconds"] > 0


@pytest.mark.usefixtures("datasets_of_all_layouts")
def test_presets_resolve_on_datasets_that_are_there(api: TestClient) -> None:
    for preset in api.get("/v1/catalog/presets").json()["data"]:
        on = {"paired": "sensors"}.get(preset["name"], preset["sweep"]["base"]["dataset"]["name"])
        sweep = preset["sweep"] | {"base": preset["sweep"]["base"] | {"dataset": {"name": on}}}
        answer = api.post("/v1/sweeps?dry_run=true", json=sweep)
        missing = answer.status_code == 422 and "is not under" in answer.json()["detail"]
        assert answer.status_code == 200 or missing, answer.text


def test_estimators_say_what_they_bound_and_their_schema_takes_them(api: TestClient) -> None:
    found = {estimator["name"]: estimator for estimator in api.get("/v1/catalog/estimators").json()["data"]}
    assert set(found) == set(spec.ESTIMATORS)
    kinds = {name: found[name]["kind"] for name in ("infonce", "leave_one_out", "smile")}
    assert kinds == {"infonce": "lower", "leave_one_out": "upper", "smile": "neither"}
    for name, estimator in found.items():
        assert estimator["unit"] == "nats" and estimator["validity"] and estimator["source"]
        schema = Draft202012Validator(estimator["schema"])
        assert schema.is_valid({"estimators": [name]}) and not schema.is_valid({"estimators": ["mine"]})


def test_there_is_no_such_sort(api: TestClient) -> None:
    answer = api.get("/v1/catalog/recipes")
    assert answer.status_code == 404
    assert "'views'" in answer.json()["detail"]


def test_digits_are_always_there_and_what_is_absent_says_so(api: TestClient) -> None:
    found = {dataset["name"]: dataset for dataset in api.get("/v1/catalog/datasets").json()["data"]}
    assert found["digits"]["present"]
    facts = found["digits"]["facts"]
    assert (facts["train"], facts["test"], facts["channels"], facts["image_size"], facts["classes"]) == (1078, 719, 1, 16, 10)
    assert set(found) >= {
        "digits",
        "mnist",
        "fashion_mnist",
        "cifar10",
        "cifar100",
        "stl10",
        "imagenet",
        "tiny-imagenet-200",
        "moving_mnist",
    }
    assert all((dataset["facts"] is None) == (not dataset["present"]) for dataset in found.values())
