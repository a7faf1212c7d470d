"""A worker decodes what was uploaded, and what waited for it goes on."""

import io
import os
import signal
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.persistence import files
from app.settings import settings

Json = dict[str, Any]
Upload = Callable[..., Json]
Decoded = Callable[[Json], Json]
TINY = {
    "encoder": {"kind": "small_conv", "width": 4},
    "method": {"kind": "simclr", "projection": 8},
    "pretrain": {"steps": 5, "batch_size": 8},
}


def picture(seed: int, height: int = 16, width: int = 16) -> bytes:
    """A PNG whose content is the seed's."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def noise(*shape: int, dtype: Any = np.uint8) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def classes(items: int = 24) -> bytes:
    return zipped({f"{'cats' if seed % 2 else 'dogs'}/{seed}.png": picture(seed) for seed in range(items)})


def photos(items: int = 24) -> bytes:
    return zipped({f"trip/{seed}.png": picture(seed, 20 + seed % 5, 24 + seed % 3) for seed in range(items)})


@pytest.fixture
def upload(api: TestClient) -> Upload:
    def upload(content: bytes, **fields: str) -> Json:
        answer = api.post("/v1/datasets", data=fields, files={"file": ("mine.zip", content)})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    return upload


@pytest.fixture
def decoded(api: TestClient, eventually: Any) -> Decoded:
    """Wait until an upload is ready or rejected, and answer it."""

    def wait(dataset: Json) -> Json:
        eventually(lambda: api.get(dataset["links"]["self"]).json()["state"] != "processing")
        return dict(api.get(dataset["links"]["self"]).json())

    return wait


def leftovers() -> list[str]:
    """What no upload owns."""
    return [path.name for path in settings().uploads_dir.glob(".*")] + [path.name for path in files.incoming().glob("*")]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("content", "layout", "facts"),
    [
        (classes(), None, {"layout": "images", "train": 14, "test": 10, "channels": 3, "image_size": 16, "classes": 2}),
        (classes(), "photos", {"layout": "photos", "classes": None, "smallest_side": 16}),
        (photos(), None, {"layout": "photos", "train": 14, "test": 10, "channels": 3, "classes": None, "smallest_side": 20}),
        (
            npz(x=noise(40, 12, 12, 5, dtype=np.uint16)),
            None,
            {"layout": "images", "channels": 5, "dtype": "uint16", "classes": None},
        ),
        (npz(clips=noise(20, 4, 8, 8, 1)), "clips", {"layout": "clips", "frames": 4, "channels": 1}),
        (
            npz(v1=noise(20, 8, 8, 1), v2=noise(20, 8, 9, 2, dtype=np.float32), y=np.arange(20) % 4),
            "paired",
            {"layout": "paired", "channels": 1, "channels2": 2, "classes": 4},
        ),
    ],
)
def test_each_layout_is_decoded(upload: Upload, decoded: Decoded, content: bytes, layout: str | None, facts: Json) -> None:
    dataset = decoded(upload(content, **({"layout": layout} if layout else {})))
    assert dataset["state"] == "ready", dataset["reason"]
    assert dataset["facts"] | facts | {"name": dataset["id"]} == dataset["facts"]
    assert not leftovers()


@pytest.mark.usefixtures("worker")
def test_an_experiment_submitted_at_once_runs_when_the_dataset_is_ready(
    api: TestClient, upload: Upload, decoded: Decoded, finished: Any, events: Any
) -> None:
    dataset = upload(classes())
    spec = {"dataset": {"name": dataset["id"]}, "views": {"kind": "crop", "area": 0.5}, **TINY}
    experiment = finished(api.post("/v1/experiments", json=spec).json()["id"])
    assert experiment["state"] == "succeeded", experiment["error"]
    assert list(experiment["results"]["tasks"]) == ["classification"]
    told = [event["type"] for event in events(experiment["id"])]
    assert told[0] == "queued" and told[-1] == "succeeded"
    assert decoded(dataset)["state"] == "ready"
    preview = api.post("/v1/previews", json={"dataset": spec["dataset"], "views": {"kind": "color_split"}})
    assert preview.headers["Content-Type"] == "image/png", preview.text


@pytest.mark.usefixtures("worker")
def test_photographs_without_labels_give_a_sweep_and_previews(api: TestClient, upload: Upload, finished: Any) -> None:
    dataset = upload(photos())
    spec = {"dataset": {"name": dataset["id"], "image_size": 16}, "views": {"kind": "crop"}, **TINY}
    preview = api.post(
        "/v1/previews", json={"dataset": {"name": dataset["id"]}, "views": {"kind": "patches", "size": 8, "distance": 4}}
    )
    sweep = api.post("/v1/sweeps", json={"base": spec, "axis": {"path": "views.area", "values": [0.2, 0.8]}, "seeds": 1}).json()
    for member in sweep["experiments"]:
        done = finished(member["id"])
        assert (done["state"], done["results"]["tasks"]) == ("succeeded", {}), done["error"]
    if preview.status_code == 202:
        preview = api.get(preview.headers["Location"], headers={"Prefer": "wait=60"})
    assert preview.headers["Content-Type"] == "image/png", preview.text


@pytest.mark.usefixtures("worker")
def test_a_twin_can_be_trained_on_when_the_first_is_gone(
    api: TestClient, upload: Upload, decoded: Decoded, finished: Any
) -> None:
    content = classes()  # once: a zip knows the time at which it was made
    first = decoded(upload(content))
    twin = upload(content)
    assert (twin["state"], twin["same_as"]) == ("ready", first["id"])
    assert api.delete(first["links"]["self"]).status_code == 204
    spec = {"dataset": {"name": twin["id"]}, "views": {"kind": "noise"}, **TINY}
    experiment = finished(api.post("/v1/experiments", json=spec).json()["id"])
    assert experiment["state"] == "succeeded", experiment["error"]


BAD: dict[str, tuple[bytes, str | None, str]] = {
    "no archive": (b"hello", None, "the file is no zip"),
    "a single array": (b"\x93NUMPY\x01\x00", None, "a single array; save it as an npz"),
    "a zip cut short": (classes()[:-40], None, "the file is no zip"),
    "traversal": (zipped({"../../evil.png": picture(0)}), None, "'../../evil.png' that would lie outside of it"),
    "an absolute name": (zipped({"/etc/evil.png": picture(0)}), None, "'/etc/evil.png' that would lie outside of it"),
    "a bomb": (zipped({"a/0.png": bytes(20_000_000)}, zipfile.ZIP_DEFLATED), None, "looks like a zip bomb"),
    "no image": (zipped({"a/0.txt": b"hello"}), None, "no images in it"),
    "something else": (zipped({"a/0.pdf": b"hello"}), None, "a/0.pdf in the zip is neither a JPEG nor a PNG"),
    "a broken image": (zipped({f"a/{seed}.png": picture(seed)[:60] for seed in range(24)}), None, "a/"),
    "too few": (photos(10), None, "at least 8 of each are needed"),
    "pickled objects": (npz(x=np.array([{}] * 30, dtype=object)), None, "unpickled"),
    "pickled labels": (npz(x=noise(30, 8, 8), y=np.array([{}] * 30, dtype=object)), None, "unpickled"),
    "mixed shapes": (
        npz(v1=noise(30, 8, 8), v2=noise(29, 8, 8)),
        None,
        "30",
    ),
    "too few labels": (npz(x=noise(30, 8, 8), y=np.arange(29)), None, "labels must be 30 integers"),
    "other arrays": (npz(images=noise(30, 8, 8)), None, "x [N, H, W]"),
    "another layout than said": (photos(), "class_folders", "the folders of the zip say no classes"),
    "a zip said to be an array": (photos(), "array", "the file was said to be array"),
}


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_rejected_with_the_reason_and_so_is_what_waited(
    api: TestClient, upload: Upload, decoded: Decoded, finished: Any, case: str
) -> None:
    content, layout, words = BAD[case]
    dataset = upload(content, **({"layout": layout} if layout else {}))
    submitted = api.post("/v1/experiments", json={"dataset": {"name": dataset["id"]}, "views": {"kind": "noise"}})
    rejected = decoded(dataset)
    assert rejected["state"] == "rejected"
    assert words in rejected["reason"]
    assert str(settings().data_dir) not in rejected["reason"]
    told = f"{dataset['id']} was rejected: {rejected['reason']}"
    if submitted.status_code == 202:
        assert finished(submitted.json()["id"])["error"] == {"code": "user", "message": told}
    else:  # it was rejected before the experiment came
        assert (submitted.status_code, submitted.json()["detail"]) == (422, told)
    assert not leftovers() and not files.dataset_folder(dataset["id"]).exists()


MANY = zipped({f"{seed % 2}/{seed}.png": picture(seed, 64, 64) for seed in range(3000)})


def decoding(worker: Any, eventually: Any, dataset: Json, attempt: int) -> int:
    """The process that decodes it, once it does."""

    def started() -> list[str]:
        lines = [line for line in worker.log.read_text().splitlines() if f"dataset={dataset['id']}" in line]
        return [line for line in lines if "event=started" in line and f"attempt={attempt} " in f"{line} "]

    return int(eventually(started)[0].split("runner=")[1].split()[0])


def test_a_decoder_killed_in_the_middle_costs_an_attempt_and_nothing_else(
    worker: Any, upload: Upload, decoded: Decoded, eventually: Any
) -> None:
    dataset = upload(MANY)
    os.kill(decoding(worker, eventually, dataset, 1), signal.SIGKILL)
    ready = decoded(dataset)
    assert (ready["state"], ready["facts"]["train"]) == ("ready", 1800), ready["reason"]
    assert decoding(worker, eventually, dataset, 2)


def test_a_file_that_kills_its_decoder_three_times_is_rejected(
    api: TestClient, worker: Any, upload: Upload, decoded: Decoded, eventually: Any, finished: Any
) -> None:
    dataset = upload(MANY)
    spec = {"dataset": {"name": dataset["id"]}, "views": {"kind": "noise"}}
    experiment = api.post("/v1/experiments", json=spec).json()
    for attempt in (1, 2, 3):
        os.kill(decoding(worker, eventually, dataset, attempt), signal.SIGKILL)
    rejected = decoded(dataset)
    assert (rejected["state"], rejected["reason"]) == ("rejected", "the decoding process ended early: ended by SIGKILL")
    assert finished(experiment["id"])["error"]["message"] == f"{dataset['id']} was rejected: {rejected['reason']}"
