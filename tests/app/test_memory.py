"""What a training needs is told beforehand, and refused where no worker has it."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app import memory
from app.persistence import hardware, workers
from app.settings import settings
from ml.spec import Dataset, DatasetFacts, ExperimentSpec, SpecError, resolve

Json = dict[str, Any]
MIB, GIB = 2**20, 2**30
SMALL = DatasetFacts(name="small", train=1200, test=800, channels=3, image_size=32, classes=10)
LARGE = {
    "dataset": {"name": "digits", "image_size": 64},
    "views": {"kind": "noise"},
    "encoder": {"kind": "resnet50"},
    "pretrain": {"batch_size": 256},
}


def facts(_: Dataset) -> DatasetFacts:
    return SMALL


def resolved(known: DatasetFacts = SMALL, **fields: Any) -> ExperimentSpec:
    spec = {"dataset": {"name": "small"}, "views": {"kind": "noise"}} | fields
    return resolve(ExperimentSpec.model_validate(spec), lambda _, __: known)


# CALIBRATED


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ({"pretrain": {"batch_size": 64}}, {"pretrain": {"batch_size": 512}}),
        ({"dataset": {"name": "small", "image_size": 32}}, {"dataset": {"name": "small", "image_size": 64}}),
        ({"encoder": {"kind": "resnet18"}}, {"encoder": {"kind": "resnet50"}}),
        ({"encoder": {"kind": "small_conv"}}, {"encoder": {"kind": "small_conv", "width": 256}}),
        ({"mi": {"k": 64}}, {"mi": {"k": 600}}),
        ({"pretrain": {"optimiser": "sgd"}, "encoder": {"kind": "resnet50"}}, {"encoder": {"kind": "resnet50"}}),
        ({"pretrain": {"processes": 1}}, {"pretrain": {"processes": 4}}),
        ({"method": {"kind": "moco", "queue": 512}}, {"method": {"kind": "moco", "queue": 1_000_000}}),
        ({"method": {"kind": "inst_dis", "negatives": 16}}, {"method": {"kind": "inst_dis", "negatives": 1000}}),
        (
            {"views": {"kind": "learned", "hidden": 16, "batch_size": 256}},
            {"views": {"kind": "learned", "hidden": 512, "batch_size": 256}},
        ),
        ({"method": {"kind": "frozen"}, "pretrain": {"batch_size": 1024}}, {"pretrain": {"batch_size": 1024}}),
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_more_of_something_needs_more(smaller: Json, larger: Json) -> None:
    assert memory.needed(resolved(**smaller), facts) < memory.needed(resolved(**larger), facts)


def test_a_dataset_counts_by_its_bytes() -> None:
    large = SMALL.model_copy(update={"train": 1_001_200})
    more = memory.needed(resolved(large, tasks=[]), lambda _: large) - memory.needed(resolved(tasks=[]), facts)
    assert more == 2 * 1_000_000 * 3 * 32 * 32


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"encoder": {"kind": "resnet18"}, "pretrain": {"batch_size": 8192}}, "/pretrain/batch_size", "batch_size up to about"),
        ({"views": {"kind": "augment"}, "mi": {"k": 20_000}, "pretrain": {"batch_size": 2}}, "/mi/k", "mi.k up to about"),
        ({"dataset": {"name": "small", "image_size": 512}}, "/dataset/image_size", "image_size up to about"),
        (
            {"encoder": {"kind": "small_conv", "width": 512}, "method": {"kind": "simclr", "hidden": 16_384}},
            "/encoder",
            "smaller",
        ),
    ],
)
def test_the_field_to_change_is_named_with_what_would_fit(fields: Json, pointer: str, words: str) -> None:
    many = SMALL.model_copy(update={"train": 60_000, "test": 40_000, "image_size": 8})
    spec = resolved(many, **fields)
    available = 4 * GIB
    with pytest.raises(SpecError, match=r"needs about .* GiB of memory, the largest worker has 4 GiB") as error:
        memory.require(spec, lambda _: many, available)
    assert error.value.pointer == pointer and words in error.value.message
    if "up to about" in words:
        part, field = pointer.strip("/").split("/")
        most = int(error.value.message.split("about ")[-1].split()[0])
        fields = fields | {part: fields.get(part, {}) | {field: most}}
        memory.require(resolved(many, **fields), lambda _: many, available)


def test_the_least_worker_takes_the_smallest_training() -> None:
    memory.require(resolved(), facts, 2 * GIB)


# In the API


def worker(work: Any, name: str, **hardware: Any) -> None:
    work.write(lambda session: workers.hello(session, name, hardware))


def test_the_cost_tells_it(api: TestClient) -> None:
    cost = api.post("/v1/experiments?dry_run=true", json=LARGE).json()["cost"]
    assert 30 * GIB < cost["memory_bytes"] < 60 * GIB
    sweep = {"base": LARGE, "axis": {"path": "pretrain.batch_size", "values": [2, 256, 64]}, "seeds": 2}
    assert api.post("/v1/sweeps?dry_run=true", json=sweep).json()["cost"]["memory_bytes"] == cost["memory_bytes"]


def test_what_the_largest_worker_cannot_hold_is_refused(api: TestClient, work: Any) -> None:
    assert api.post("/v1/experiments", json=LARGE).status_code == 202, "64 GiB where no worker was heard of"
    worker(work, "small", memory_bytes=4 * GIB)
    worker(work, "larger", memory_bytes=16 * GIB)
    answer = api.post("/v1/experiments", json=LARGE)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/pretrain/batch_size" and "the largest worker has 16 GiB" in error["message"]
    sweep = {"base": LARGE, "axis": {"path": "pretrain.batch_size", "values": [2, 256]}}
    assert api.post("/v1/sweeps", json=sweep).json()["errors"][0]["pointer"] == "/axis/values/1"
    sweep = {"base": LARGE, "axis": {"path": "views.sigma", "search": {"low": 0.1, "high": 2}}}
    assert api.post("/v1/sweeps", json=sweep).json()["errors"][0]["pointer"] == "/base/pretrain/batch_size"
    preview = {"dataset": LARGE["dataset"], "views": LARGE["views"]}
    assert api.post("/v1/previews", json=preview, headers={"Prefer": "wait=0"}).status_code == 202, "that trains nothing"
    worker(work, "largest", memory_bytes=128 * GIB)
    assert api.post("/v1/experiments", json=LARGE).status_code == 202


@pytest.mark.parametrize("hardware", [{"gpus": ["H100"], "memory_bytes": GIB}, {"memory_bytes": None}, {}])
def test_a_worker_that_does_not_know_its_memory_is_not_judged_by_it(api: TestClient, work: Any, hardware: Json) -> None:
    worker(work, "small", memory_bytes=GIB)
    worker(work, "other", **hardware)
    assert api.post("/v1/experiments", json=LARGE).status_code == 202


def test_what_is_taken_of_a_worker_that_is_not_there_yet_is_a_setting(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_WORKER_MEMORY", str(GIB // 2))
    settings.cache_clear()
    try:
        answer = api.post("/v1/experiments", json=LARGE)
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    assert "the largest worker has 0.5 GiB" in answer.json()["detail"]


# What a machine has


def machine(root: Path, cgroup: str, **limits: str) -> int | None:
    """The memory of one with 16 GiB, a process in this cgroup, and these files of limits, `/` written as `__`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, limit in limits.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("memory_max", "memory.max")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(limit)
    return hardware.memory(root)


def test_memory_is_the_machine_s_or_what_a_cgroup_leaves_of_it(tmp_path: Path) -> None:
    assert machine(tmp_path / "none", "0::/\n") == 16 * GIB
    assert machine(tmp_path / "all", "0::/\n", memory_max="max\n") == 16 * GIB
    assert machine(tmp_path / "container", "0::/\n", memory_max=f"{4 * GIB}\n") == 4 * GIB
    assert machine(tmp_path / "inner", "0::/a/b\n", a__memory_max=f"{2 * GIB}\n", a__b__memory_max="max\n") == 2 * GIB
    assert machine(tmp_path / "more", "0::/\n", memory_max=f"{64 * GIB}\n") == 16 * GIB
    (tmp_path / "v1/sys/fs/cgroup/memory/job").mkdir(parents=True)
    (tmp_path / "v1/sys/fs/cgroup/memory/job/memory.limit_in_bytes").write_text(f"{GIB}\n")
    assert machine(tmp_path / "v1", "4:memory:/job\n0::/\n") == GIB
    assert hardware.memory(tmp_path / "no Linux") is None


def test_a_worker_tells_its_memory() -> None:
    assert hardware.describe()["memory_bytes"] == hardware.memory()
