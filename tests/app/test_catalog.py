"""`/v1/catalog`: what can be asked for, and that the API knows of datasets what the workers know."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from app import datasets
from app.errors import Invalid
from app.settings import settings
from ml.datasets import DatasetInvalid, DatasetMissing, load

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


@pytest.mark.parametrize("sort", ["views", "methods", "encoders", "tasks"])
def test_what_it_names_can_be_submitted(sort: str, api: TestClient, spec: dict[str, Any]) -> None:
    for variant in api.get(f"/v1/catalog/{sort}").json()["data"]:
        part = {"kind": variant["name"]}
        field = {"views": {"views": part}, "methods": {"method": part}, "encoders": {"encoder": part}, "tasks": {"tasks": [part]}}
        answer = api.post("/v1/experiments?dry_run=true", json=spec | field[sort])
        assert answer.status_code == 200, answer.text


def test_there_is_no_such_sort(api: TestClient) -> None:
    answer = api.get("/v1/catalog/recipes")
    assert answer.status_code == 404
    assert "'views'" in answer.json()["detail"]


def test_digits_are_always_there_and_what_is_absent_says_so(api: TestClient) -> None:
    found = {dataset["name"]: dataset for dataset in api.get("/v1/catalog/datasets").json()["data"]}
    assert found["digits"]["present"]
    assert found["digits"]["facts"] == {
        "train": 1078,
        "test": 719,
        "channels": 1,
        "image_size": 16,
        "classes": 10,
        "version": None,
    }
    assert set(found) >= {"digits", "mnist", "cifar10"}
    assert all((dataset["facts"] is None) == (not dataset["present"]) for dataset in found.values())


# The API reads headers alone, the workers read everything: both must come to the same facts


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SWEETSPOT_DATASETS", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    settings.cache_clear()


def uint8(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


GOOD = {
    "grey": {"x": uint8(40, 9, 9), "y": np.arange(40) % 4},
    "colour": {"x": uint8(40, 9, 9, 3), "y": np.arange(40) % 5},
    "unlabelled": {"x": uint8(40, 9, 9)},
    "wide": {"x": uint8(40, 9, 15, 3)},
    "split_in_words": {"x": uint8(40, 9, 9), "split": np.array(["train"] * 29 + ["test"] * 11)},
    "split_in_numbers": {"x": uint8(40, 9, 9), "split": np.arange(40) % 2},
    "column_of_labels": {"x": uint8(40, 9, 9), "y": np.arange(40)[:, None] % 4},
    "two_splits": {
        "train_images": uint8(30, 9, 9),
        "test_images": uint8(12, 9, 9),
        "train_labels": np.arange(30) % 3,
        "test_labels": np.arange(12) % 4,
    },
    "something_besides": {"x": uint8(40, 9, 9), "notes": np.array(["taken by night"])},
}
BAD = {
    "floats": {"x": np.zeros((40, 9, 9))},
    "flat": {"x": uint8(40, 81)},
    "too_few": {"x": uint8(12, 9, 9)},
    "nothing_held_out": {"x": uint8(40, 9, 9), "split": np.zeros(40, dtype=int)},
    "other_names": {"images": uint8(40, 9, 9)},
    "pickled": {"x": uint8(40, 9, 9), "y": np.array([{"a": 1}] * 40, dtype=object)},
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("place", ["", "of_mine/"])
def test_the_api_and_the_workers_agree_on_a_dataset(name: str, place: str, folder: Path) -> None:
    (folder / place).mkdir(exist_ok=True)
    np.savez(folder / f"{place}{name}.npz", **GOOD[name])
    assert datasets.facts(name) == load(name, None, folder, torch.device("cpu")).facts
    assert name in datasets.present()


@pytest.mark.parametrize("name", BAD)
def test_they_agree_on_what_is_none(name: str, folder: Path) -> None:
    np.savez(folder / f"{name}.npz", **BAD[name])
    with pytest.raises(Invalid) as refused:
        datasets.facts(name)
    assert refused.value.errors[0].pointer == "/dataset/name"
    with pytest.raises(DatasetInvalid):
        load(name, None, folder, torch.device("cpu"))
    assert name not in datasets.present()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no zip", b"\x93NUMPY"])
def test_a_broken_file_is_no_dataset(content: bytes, folder: Path) -> None:
    (folder / "broken.npz").write_bytes(content)
    with pytest.raises(Invalid):
        datasets.facts("broken")


def test_cifar_may_come_as_an_npz_in_its_folder(folder: Path) -> None:
    arrays = {"train_images": uint8(30, 32, 32, 3), "test_images": uint8(12, 32, 32, 3)}
    np.savez(folder / "cifar10.npz", **arrays)
    with pytest.raises(Invalid):
        datasets.facts("cifar10")
    with pytest.raises(DatasetMissing):
        load("cifar10", None, folder, torch.device("cpu"))
    (folder / "cifar10").mkdir()
    (folder / "cifar10.npz").rename(folder / "cifar10" / "cifar10.npz")
    facts = load("cifar10", None, folder, torch.device("cpu")).facts
    assert datasets.facts("cifar10").model_dump(exclude={"name"}) == facts.model_dump(exclude={"name"})


def test_a_dataset_that_changes_has_other_facts(folder: Path) -> None:
    np.savez(folder / "mine.npz", x=uint8(40, 9, 9))
    before = datasets.facts("mine")
    np.savez(folder / "mine.npz", x=uint8(50, 9, 9))
    assert (before.train, datasets.facts("mine").train) == (24, 30)


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_they_agree_on_the_real_ones(name: str, datasets_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_DATASETS", str(datasets_folder))
    settings.cache_clear()
    if name not in datasets.present():
        pytest.skip(f"no {name} under SWEETSPOT_DATASETS")
    assert datasets.facts(name) == load(name, None, datasets_folder, torch.device("cpu")).facts


def test_other_data_under_the_same_name_is_another_experiment(folder: Path, api: TestClient) -> None:
    def resolved() -> dict[str, Any]:
        spec = {"dataset": {"name": "mine"}, "views": {"kind": "noise"}}
        answer = api.post("/v1/experiments?dry_run=true", json=spec)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["spec"])

    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8)
    labels = np.arange(100) % 5
    np.savez(folder / "mine.npz", x=images, y=labels)
    before = resolved()
    np.savez(folder / "mine.npz", x=images, y=labels)
    assert resolved() == before
    np.savez(folder / "mine.npz", x=255 - images, y=labels)
    assert resolved()["dataset"]["version"] != before["dataset"]["version"]
    refused = api.post("/v1/experiments", json=before)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/dataset/version"
