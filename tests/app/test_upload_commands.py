"""Uploads by the client and the command line, over a real server."""

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from app.cli import main
from app.client import ConflictError, NotFoundError, Sweetspot
from app.embedded import Servers, free_port
from app.main import create_app
from app.persistence import files, leases
from app.settings import settings
from ml.spec import DatasetFacts

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def url(database: Servers) -> Iterator[str]:
    """The API on a port, over an empty database."""
    files.remove_folder(settings().uploads_dir)
    server = uvicorn.Server(uvicorn.Config(create_app(), port=free_port(), log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{server.config.port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(url: str) -> Iterator[Sweetspot]:
    with Sweetspot(url) as client:
        yield client


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "my scans.zip"
    path.write_bytes(b"PK" * 300_000)
    return path


@pytest.fixture
def decode(work: Any) -> Callable[[str | None], None]:
    """A worker that waits for an upload and is done with it: it is ready, or rejected for a reason."""

    def decode(reason: str | None = None) -> None:
        while (claim := work.write(lambda session: leases.claim_dataset(session, "worker-1", 60))) is None:
            time.sleep(0.01)
        facts = DatasetFacts(name=claim.id, layout="photos", train=24, test=16, channels=3, image_size=64, smallest_side=321)
        if reason:
            work.write(lambda session: leases.fail(session, claim, {"code": "user", "message": reason}))
        else:
            work.write(lambda session: leases.succeed_dataset(session, claim, facts.model_dump(mode="json")))

    return decode


@pytest.fixture
def sweetspot(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line: its exit status, and what it printed."""
    monkeypatch.setenv("SWEETSPOT_URL", url)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sweetspot", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def test_the_client_uploads_follows_lists_and_deletes(client: Sweetspot, archive: Path, decode: Callable[..., None]) -> None:
    made = client.upload(archive, name="scans", layout="photos")
    assert (made["state"], made["name"], made["size"]) == ("processing", "scans", 600_000)
    with pytest.raises(ConflictError):
        client.delete(made["id"])
    decode()
    ready = client.wait(made["id"])
    assert (ready["state"], ready["facts"]["smallest_side"]) == ("ready", 321)
    with archive.open("rb") as file:
        again = client.upload(file)
    assert again["name"] == "my scans"
    assert [found["id"] for found in client.datasets()] == [again["id"], made["id"]]
    client.delete(made["id"])
    with pytest.raises(NotFoundError):
        client.get(made["id"])


def test_upload_prints_the_id_and_how_to_go_on(sweetspot: Run, archive: Path) -> None:
    status, out, err = sweetspot("upload", archive)
    assert status == 0
    assert re.fullmatch(r"ds_[0-9a-f]+\n", out)
    told = [line for line in err.splitlines() if not line.startswith("timestamp=")]  # the API's own, in the same process
    assert told == ["processing", f"sweetspot status {out.strip()}"]


@pytest.mark.parametrize(("reason", "status", "words"), [(None, 0, "24 for training, 16 held out"), ("no image", 1, "no image")])
def test_upload_waits_and_tells_what_it_holds_or_why_not(
    sweetspot: Run, archive: Path, decode: Callable[..., None], reason: str | None, status: int, words: str
) -> None:
    worker = threading.Thread(target=decode, args=(reason,))
    worker.start()
    told = sweetspot("upload", archive, "--layout", "photos", "--wait")
    worker.join()
    assert told[0] == status
    assert re.fullmatch(r"ds_[0-9a-f]+\n", told[1])
    assert words in told[2]


def test_datasets_are_listed_and_shown(sweetspot: Run, archive: Path, decode: Callable[..., None]) -> None:
    _, out, _ = sweetspot("upload", archive, "--name", "scans")
    decode()
    status, listed, _ = sweetspot("datasets")
    assert status == 0
    assert all(word in listed for word in (out.strip(), "scans", "ready", "40"))
    _, shown, _ = sweetspot("status", out.strip())
    assert "seen at 64 px, the smallest side 321 px" in shown


def test_a_file_that_is_not_there_is_wrong_usage_and_a_wrong_layout_is_told(sweetspot: Run, archive: Path) -> None:
    assert sweetspot("upload", archive.with_name("nothing.zip"))[0] == 2
    status, _, err = sweetspot("upload", archive, "--layout", "folders")
    assert status == 1
    assert "/layout: Input should be 'class_folders', 'photos', 'array', 'clips' or 'paired', not 'folders'" in err
