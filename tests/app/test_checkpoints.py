"""`/v1/checkpoints`: what is taken in, what is refused at the door, and who may begin from it. The tensors are the worker's."""

import io
import json
import pickle
import struct
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from app import checkpoint_headers
from app.cli import main
from app.client import NotFoundError, Sweetspot
from app.embedded import Servers, free_port
from app.main import create_app
from app.persistence import files
from app.settings import settings

Json = dict[str, Any]
Upload = Callable[..., Json]
NOWHERE = f"ckp_{'0' * 64}"


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(begin: Any = 0, end: Any = 16, shape: Any = (2, 2), dtype: Any = "F32") -> Json:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def members(*names: str, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of files of these names, as torch.save makes one."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"what only a worker reads" * 10, compression)
    return content.getvalue()


SAFE = safetensors({"__metadata__": {"format": "pt"}, "conv1.weight": tensor(), "counter": tensor(16, 24, (), "I64")}, bytes(24))
TORCH = members("encoder/data.pkl", "encoder/version", "encoder/data/0", "encoder/data/1")


@pytest.fixture(autouse=True)
def _empty_store(database: Servers) -> Iterator[None]:
    files.remove_folder(settings().uploads_dir)
    yield
    assert not [*files.incoming().glob("*")], "nothing is left half received"


@pytest.fixture
def upload(api: TestClient) -> Upload:
    """Uploads a checkpoint, with these fields beside it."""

    def upload(content: bytes = SAFE, headers: Json | None = None, **fields: str) -> Json:
        answer = api.post("/v1/checkpoints", data=fields, files={"file": ("my encoder.pt", content)}, headers=headers)
        assert answer.status_code == 201, answer.text
        assert answer.headers["Location"] == answer.json()["links"]["self"]
        return dict(answer.json())

    return upload


def beginning(checkpoint: str) -> Json:
    return {"encoder": {"kind": "resnet18", "weights": checkpoint}, "method": {"kind": "frozen"}}


def stored() -> set[str]:
    root = settings().uploads_dir
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("content", "format"), [(SAFE, "safetensors"), (TORCH, "torch")])
def test_a_checkpoint_is_known_by_its_content(api: TestClient, upload: Upload, content: bytes, format: str) -> None:
    made, digest = upload(content), sha256(content).hexdigest()
    url = f"/v1/checkpoints/ckp_{digest}"
    known = {"id": f"ckp_{digest}", "name": "my encoder", "size": len(content), "format": format, "links": {"self": url}}
    assert made == api.get(url).json() == known
    assert files.checkpoint(digest).read_bytes() == content
    assert upload(content, name="another name")["id"] == made["id"]
    assert api.get(url).json()["name"] == "another name"
    assert stored() == {f"checkpoints/{digest}"}


def test_a_deleted_checkpoint_is_gone_and_may_come_again(api: TestClient, upload: Upload) -> None:
    url = upload()["links"]["self"]
    assert api.delete(url).status_code == 204
    assert not stored()
    assert api.get(url).status_code == api.delete(url).status_code == 404
    assert upload()["links"]["self"] == url


def test_a_repeated_post_under_one_key_answers_as_the_first(api: TestClient, upload: Upload) -> None:
    key = {"Idempotency-Key": "k"}
    first = upload(headers=key)
    again = api.post("/v1/checkpoints", files={"file": ("my encoder.pt", SAFE)}, headers=key)
    assert (again.status_code, again.headers["Idempotent-Replayed"], again.json()) == (201, "true", first)
    other = api.post("/v1/checkpoints", files={"file": TORCH}, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "urn:sweetspot:problem:idempotency-mismatch")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/v1/checkpoints/{NOWHERE}", 404),
        ("GET", "/v1/checkpoints/ckp_17", 404),
        ("GET", f"/v1/checkpoints/ckp_{'0' * 60}%2F..x", 404),
        ("DELETE", f"/v1/checkpoints/{NOWHERE}", 404),
        ("POST", "/v1/checkpoints", 415),
        ("GET", "/v1/checkpoints", 405),
    ],
)
def test_errors_are_problem_documents(api: TestClient, method: str, path: str, status: int) -> None:
    answer = api.request(method, path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")


# What is refused at the door

REFUSED: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "the file is empty"),
    "a text": (b"weights, believe me", "neither a zip nor does it begin with the length of a safetensors header"),
    "a few bytes": (b"abc", "neither a zip"),
    "a header longer than the file": (struct.pack("<Q", 400) + b"{}", "neither a zip"),
    "a header without end": (struct.pack("<Q", 2**62) + b"{}", "neither a zip"),
    "no JSON": (safetensors(b"{tensors}"), "the header of the file is no JSON"),
    "JSON without end": (safetensors(b"[" * 100_000), "the header of the file is no JSON"),
    "a list": (safetensors([tensor()], bytes(16)), "names no tensors"),
    "no tensor": (safetensors({"__metadata__": {}}), "names no tensors"),
    "beyond the end": (safetensors({"w": tensor(0, 16)}, bytes(15)), "the header's entry for 'w' does not have"),
    "before the beginning": (safetensors({"w": tensor(-16, 0)}, bytes(16)), "entry for 'w'"),
    "backwards": (safetensors({"w": tensor(16, 0, (0,))}, bytes(16)), "entry for 'w'"),
    "another length than its shape": (safetensors({"w": tensor(shape=[2, 3])}, bytes(16)), "entry for 'w'"),
    "an unknown type": (safetensors({"w": tensor(dtype="F31")}, bytes(16)), "entry for 'w'"),
    "a type that is none": (safetensors({"w": tensor(dtype=["F32"])}, bytes(16)), "entry for 'w'"),
    "a shape that is none": (safetensors({"w": tensor(shape=4)}, bytes(16)), "entry for 'w'"),
    "a broken shape": (safetensors({"w": tensor(shape=[2, 2.0])}, bytes(16)), "entry for 'w'"),
    "no entry": (safetensors({"w": 7}, bytes(16)), "entry for 'w'"),
    "a pickle": (pickle.dumps({"conv1.weight": [0.5]}), "a pickle, as torch.save wrote them before torch 1.6"),
    "a zip cut short": (TORCH[:-40], "cannot be read as a zip"),
    "an empty zip": (members(), "neither a zip"),
    "a zip of images": (members("cats/1.png"), "a zip without a data.pkl in its one folder"),
    "two at once": (members("a/data.pkl", "b/data.pkl"), "a zip without a data.pkl in its one folder"),
    "a program": (members("net/data.pkl", "net/constants.pkl", "net/code/net.py"), "a TorchScript archive, which is a program"),
    "compressed": (members("net/data.pkl", "net/data/0", compression=zipfile.ZIP_DEFLATED), "the zip's members are compressed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_checkpoint_is_refused_with_what_would_be(api: TestClient, case: str) -> None:
    content, words = REFUSED[case]
    answer = api.post("/v1/checkpoints", files={"file": ("f.pt", content)})
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json"), answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/file"
    assert words in error["message"]
    assert not content or error["message"].endswith("what torch.save(encoder.state_dict(), file) writes is accepted")
    assert not stored()


def test_a_zip_of_very_many_members_is_refused(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_headers, "MOST_MEMBERS", 3)
    answer = api.post("/v1/checkpoints", files={"file": ("f.pt", TORCH)})
    assert answer.status_code == 422 and "the zip has 4 members" in answer.text


def test_an_unknown_field_is_refused(api: TestClient) -> None:
    answer = api.post("/v1/checkpoints", data={"layout": "photos"}, files={"file": SAFE})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/layout")


# Who begins from it


def test_a_spec_names_a_checkpoint_that_is_there(api: TestClient, upload: Upload, spec: Json, sweep_spec: Json) -> None:
    refused = api.post("/v1/experiments", json=spec | beginning(NOWHERE))
    (error,) = refused.json()["errors"]
    assert (refused.status_code, error["pointer"]) == (422, "/encoder/weights")
    assert error["message"] == f"there is no checkpoint '{NOWHERE}'; POST /v1/checkpoints takes one"
    assert api.post("/v1/experiments?dry_run=true", json=spec | beginning(NOWHERE)).status_code == 422
    made = upload()["id"]
    answer = api.post("/v1/experiments", json=spec | beginning(made))
    assert answer.status_code == 202
    assert answer.json()["spec"]["encoder"] == {"kind": "resnet18", "stem": "small", "weights": made}
    base = {**sweep_spec["base"], "encoder": {"kind": "small_conv"}}
    axis = {"path": "encoder.weights", "values": [made, NOWHERE]}
    pointers = [
        api.post("/v1/sweeps", json=sweep).json()["errors"][0]["pointer"]
        for sweep in (sweep_spec | {"base": spec | beginning(NOWHERE)}, sweep_spec | {"base": base, "axis": axis})
    ]
    assert pointers == ["/base/encoder/weights", "/axis/values/1"]


def test_a_checkpoint_stays_while_an_unfinished_experiment_begins_from_it(
    api: TestClient, upload: Upload, submit: Callable[..., Json], work: Any
) -> None:
    checkpoint = upload()
    experiment = submit(**beginning(checkpoint["id"]))
    refused = api.delete(checkpoint["links"]["self"])
    assert (refused.status_code, refused.json()["state"]) == (409, "queued")
    assert refused.json()["detail"] == f"{experiment['id']}, which is queued, begins from {checkpoint['id']}; cancel it first"
    work.succeed(work.claimed())
    assert api.delete(checkpoint["links"]["self"]).status_code == 204


# The client and the command line


@pytest.fixture
def url(database: Servers) -> Iterator[str]:
    """The API on a port, over an empty database."""
    server = uvicorn.Server(uvicorn.Config(create_app(), port=free_port(), log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{server.config.port}"
    server.should_exit = True
    thread.join()


def test_the_client_uploads_gets_and_deletes(url: str, tmp_path: Path) -> None:
    (path := tmp_path / "mine.safetensors").write_bytes(SAFE)
    with Sweetspot(url) as client:
        made = client.upload_checkpoint(path)
        assert (made["name"], made["format"]) == ("mine", "safetensors")
        assert client.upload_checkpoint(io.BytesIO(SAFE), name="renamed")["name"] == "renamed"
        assert client.get(made["id"])["name"] == "renamed"
        client.delete(made["id"])
        with pytest.raises(NotFoundError):
            client.get(made["id"])


def test_the_command_line_evaluates_a_checkpoint_as_it_is(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint := tmp_path / "mine.pt").write_bytes(TORCH)
    (file := tmp_path / "spec.yaml").write_text(
        "dataset: {name: digits}\nviews: {kind: crop}\nencoder: {kind: resnet18, stem: imagenet}\nmethod: {kind: moco}\n"
    )

    def sweetspot(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sweetspot", *map(str, arguments), "--url", url])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    status, told, _ = sweetspot("evaluate", checkpoint, file)
    experiment_id, state = told.split()
    assert (status, state) == (0, "queued")
    weights = f"ckp_{sha256(TORCH).hexdigest()}"
    with Sweetspot(url) as client:
        asked = client.experiment(experiment_id)["spec"]
    assert asked["encoder"] == {"kind": "resnet18", "stem": "imagenet", "weights": weights}
    assert asked["method"]["kind"] == "frozen"
    status, shown, _ = sweetspot("status", weights)
    assert status == 0 and weights in shown.replace("\n", "") and f"{len(TORCH)} bytes" in shown
    file.write_text("dataset: {name: digits}\nviews: {kind: crop}\n")
    status, _, told = sweetspot("evaluate", checkpoint, file)
    assert status == 1 and "needs `encoder` with a `kind`: the architecture of the checkpoint" in told
