"""Backups that are really restored: into another database, on another artifacts folder, by a service that then goes on."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from fastapi.testclient import TestClient
from sqlalchemy import select

from app import backup
from app.backup import BackupError
from app.embedded import Servers
from app.main import create_app
from app.persistence import bell, datasets, files, leases, mi_estimates
from app.persistence import database as connection
from app.persistence.database import open_session
from app.persistence.models import ApiKey, Checkpoint, Event, Experiment, MiEstimate
from app.settings import settings
from migrations.__main__ import config

Json = dict[str, Any]
Submit = Callable[..., Json]
CACHED = (settings, connection.engine, connection._sessions, bell.celery)
PICTURE = b"\x89PNG of view pairs"


@pytest.fixture
def filled(api: TestClient, submit: Submit, work: Any, sweep_spec: Json, tmp_path: Path, environment: Any) -> Json:
    """A service with something of everything; ids by what they are of."""
    environment.setenv("SWEETSPOT_ARTIFACTS", str(tmp_path / "artifacts"))
    settings.cache_clear()
    done = submit(name="done")["id"]
    work.succeed(work.claimed(), artifacts={"preview.png": PICTURE, "encoder.safetensors": b"weights" * 1000})
    attempt = files.attempt_folder(done, 1)
    (attempt / files.LOG).write_text("trained\n")
    running = submit(name="running", priority=9)["id"]
    claim = work.claimed("w1@host/17")
    files.checkpoints_folder(running).mkdir(parents=True)
    (files.checkpoints_folder(running) / "000000000005-00.safetensors").write_bytes(b"step 5")
    (files.checkpoints_folder(running) / ".half").write_bytes(b"ste")
    cancelling = submit(name="cancelling", priority=8)["id"]
    work.claimed()
    api.post(f"/v1/experiments/{cancelling}/cancel")
    queued = submit(name="queued")["id"]
    sweep = api.post("/v1/sweeps", json=sweep_spec).json()["id"]
    dataset = api.post("/v1/datasets", files={"file": ("a.npz", NPZ)}, data={"name": "mine"}).json()["id"]
    decoding = work.write(lambda session: leases.claim_dataset(session, "w1@host/17", 60))
    files.dataset_folder(dataset).mkdir()
    (files.dataset_folder(dataset) / "x.npy").write_bytes(b"pixels")
    (files.dataset_folder(dataset) / files.FACTS).write_bytes(b"{}")
    facts = {"name": dataset, "train": 6, "test": 2, "channels": 1, "image_size": 8, "classes": 2}
    work.write(lambda session: leases.succeed_dataset(session, decoding, facts))
    weights = hashlib.sha256(b"sent weights").hexdigest()
    files.checkpoint(weights).parent.mkdir(parents=True)
    files.checkpoint(weights).write_bytes(b"sent weights")
    work.write(lambda session: session.add(Checkpoint(id=f"ckp_{weights}", name="w", format="safetensors", size=12)))
    hashed = {"id": "key_1", "name": "mine", "owner": "me", "hash": "0" * 64, "scopes": ["read"]}
    work.write(lambda session: session.add(ApiKey(**hashed)))
    return {
        "done": done,
        "running": running,
        "cancelling": cancelling,
        "queued": queued,
        "sweep": sweep,
        "dataset": dataset,
        "weights": weights,
        "claim": claim,
    }


def _npz() -> bytes:
    import numpy as np  # noqa: PLC0415

    held = io.BytesIO()
    np.savez(held, x=np.zeros((8, 8, 8), np.uint8), y=np.arange(8) % 2)
    return held.getvalue()


NPZ = _npz()


@pytest.fixture
def environment(database: Servers) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as environment:
        yield environment
        connection.engine().dispose()
        environment.undo()
        for cached in CACHED:
            cached.cache_clear()


@pytest.fixture
def elsewhere(filled: Json, environment: pytest.MonkeyPatch, database: Servers, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Lets the settings name a database that was never migrated, and an artifacts folder that is not there."""
    name = f"restored_{os.getpid()}"
    with psycopg.connect(database.database_url, autocommit=True) as link:
        link.execute(f"CREATE DATABASE {name}")

        def move() -> None:
            environment.setenv("DATABASE_URL", database.database_url.replace("/sweetspot?", f"/{name}?"))
            environment.setenv("SWEETSPOT_ARTIFACTS", str(tmp_path / "restored"))
            for cached in CACHED:
                cached.cache_clear()

        yield move
        connection.engine().dispose()
        link.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def tar(filled: Json, tmp_path: Path) -> Path:
    manifest = backup.make(tmp_path / "b.tar")
    assert manifest.faults == {}
    return tmp_path / "b.tar"


def served(path: str) -> Any:
    with TestClient(create_app(), base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50000)) as client:
        answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer


def test_what_was_backed_up_is_there_again_and_goes_on(filled: Json, tar: Path, elsewhere: Any, work: Any) -> None:
    before = served(f"/v1/experiments/{filled['done']}").json()
    curve = served(f"/v1/sweeps/{filled['sweep']}").json()
    elsewhere()
    backup.restore(tar)
    assert served(f"/v1/experiments/{filled['done']}").json() == before
    assert served(f"/v1/experiments/{filled['done']}/preview.png").content == PICTURE
    assert served(f"/v1/experiments/{filled['done']}/logs").text == "trained\n"
    assert served(f"/v1/sweeps/{filled['sweep']}").json()["counts"] == curve["counts"]
    assert served(f"/v1/datasets/{filled['dataset']}").json()["state"] == "ready"
    assert (files.dataset_folder(filled["dataset"]) / "x.npy").read_bytes() == b"pixels"
    assert files.blob(hashlib.sha256(NPZ).hexdigest()).read_bytes() == NPZ
    assert files.checkpoint(filled["weights"]).read_bytes() == b"sent weights"
    with open_session() as session:
        assert session.get(ApiKey, "key_1").hash == "0" * 64
    assert work.claimed().id == filled["running"], "it has the highest priority, and nobody holds it any more"


def test_what_a_worker_held_waits_again_with_its_checkpoints_and_its_history(
    filled: Json, tar: Path, elsewhere: Any, work: Any
) -> None:
    elsewhere()
    backup.restore(tar)
    with open_session() as session:
        states = {row.id: (row.state, row.lease_owner, row.attempt) for row in session.scalars(select(Experiment))}
        assert states[filled["running"]] == ("queued", None, 1)
        assert states[filled["cancelling"]] == ("cancelled", None, 1)
        for name, last in (("running", "requeued"), ("cancelling", "cancelled")):
            told = session.scalars(select(Event).where(Event.experiment_id == filled[name]).order_by(Event.seq)).all()
            assert [event.seq for event in told] == list(range(1, len(told) + 1))
            assert told[-1].type == last
    kept = files.checkpoints_folder(filled["running"])
    assert [path.name for path in kept.iterdir()] == ["000000000005-00.safetensors"]
    with pytest.raises(leases.LeaseLost):
        work.write(lambda session: leases.renew(session, filled["claim"], 60))


def test_it_is_its_owners_to_read_and_holds_no_secret_but_hashes(tar: Path) -> None:
    assert tar.stat().st_mode & 0o777 == 0o600
    with tarfile.open(tar) as held:
        names = held.getnames()
        keys = held.extractfile("database/api_keys").read().decode()
    assert names[-1] == "manifest.json"
    assert "database/workers" not in names and "database/sign_ins" not in names
    assert "0" * 64 in keys and "ssk_" not in keys


def test_it_is_of_one_moment(filled: Json, tmp_path: Path, elsewhere: Any, submit: Submit, work: Any) -> None:
    """Every experiment that is restored as succeeded has its file, whatever was submitted, finished and deleted meanwhile."""
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            submit(priority=10)
            work.succeed(work.claimed(), artifacts={"preview.png": PICTURE})

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        made = [backup.make(tmp_path / f"{number}.tar") for number in range(3)]
    finally:
        stop.set()
        thread.join()
    assert all(not manifest.faults for manifest in made)
    elsewhere()
    backup.restore(tmp_path / "2.tar")
    with open_session() as session:
        done = session.scalars(select(Experiment).where(Experiment.state == "succeeded")).all()
    assert len(done) > 1
    assert all((files.attempt_folder(row.id, row.attempt) / "preview.png").read_bytes() == PICTURE for row in done)


def test_what_somebody_deleted_meanwhile_is_named(filled: Json, tmp_path: Path, elsewhere: Any) -> None:
    (files.attempt_folder(filled["done"], 1) / "preview.png").unlink()
    (files.attempt_folder(filled["done"], 1) / "encoder.safetensors").write_bytes(b"another")
    manifest = backup.make(tmp_path / "b.tar")
    assert list(manifest.faults.values()) == ["it was not what its row says", "it was not there"]
    elsewhere()
    assert backup.restore(tmp_path / "b.tar").faults == manifest.faults


def test_so_is_a_dataset_that_was_lost(filled: Json, tmp_path: Path) -> None:
    files.remove_folder(files.dataset_folder(filled["dataset"]))
    lost = files.dataset_folder(filled["dataset"]) / files.FACTS
    name = f"files/{lost.relative_to(settings().artifacts_dir).as_posix()}"
    assert backup.make(tmp_path / "b.tar").faults == {name: "it was not there"}


# Refusals


def refused(source: Path, why: str) -> None:
    """Nothing was written: neither rows nor files."""
    with pytest.raises(BackupError, match=why):
        backup.restore(source)
    assert [path for path in settings().artifacts_dir.rglob("*") if path.is_file()] == []
    with psycopg.connect(settings().database_url) as link:
        there = link.execute("SELECT to_regclass('experiments')").fetchone()[0]
        assert there is None or link.execute("SELECT count(*) FROM experiments").fetchone() == (0,)


def changed(tar: Path, change: Callable[[str, bytes], tuple[str, bytes] | None], more: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    """A copy of a backup in which `change` has had its way with every member."""
    target = tar.with_name("changed.tar")
    with tarfile.open(tar) as source, tarfile.open(target, "w") as made:
        for header in more:
            made.addfile(header)
        for member in source:
            kept = change(member.name, source.extractfile(member).read())
            if kept is not None:
                header = tarfile.TarInfo(kept[0])
                header.size = len(kept[1])
                made.addfile(header, io.BytesIO(kept[1]))
    return target


def test_a_tampered_member_is_refused(tar: Path, elsewhere: Any) -> None:
    elsewhere()
    flipped = changed(tar, lambda name, held: (name, held[:-1] + b"X") if name.endswith("preview.png") else (name, held))
    refused(flipped, "preview.png is not what the manifest says")


def test_a_manifest_that_goes_along_with_it_is_refused_for_the_rows(tar: Path, elsewhere: Any) -> None:
    elsewhere()
    content = b"\x89PNG of something else"

    def change(name: str, held: bytes) -> tuple[str, bytes]:
        if name == "manifest.json":
            manifest = json.loads(held)
            member = next(name for name in manifest["members"] if name.endswith("preview.png"))
            manifest["members"][member] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            return name, json.dumps(manifest).encode()
        return (name, content) if name.endswith("preview.png") else (name, held)

    refused(changed(tar, change), "contradicts itself: .*preview.png")


def test_a_missing_member_is_refused(tar: Path, elsewhere: Any) -> None:
    elsewhere()
    refused(changed(tar, lambda name, held: None if name == "database/events" else (name, held)), "database/events is not")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1])
def test_a_truncated_file_is_refused(tar: Path, elsewhere: Any, share: float) -> None:
    elsewhere()
    with tar.open("r+b") as file:
        file.truncate(int((tar.stat().st_size - tarfile.RECORDSIZE) * share))  # less what tar fills up at its end
    refused(tar, "damaged|cut off")


def test_what_is_no_tar_is_refused(tar: Path, elsewhere: Any, tmp_path: Path) -> None:
    elsewhere()
    other = tmp_path / "other"
    other.write_bytes(b"something else" * 1000)
    refused(other, "no backup")


@pytest.mark.parametrize("name", ["files/../../../evil", "/tmp/evil", "../evil", "evil", "files"])
def test_a_member_that_leads_elsewhere_is_refused(tar: Path, elsewhere: Any, name: str) -> None:
    elsewhere()
    refused(changed(tar, lambda member, held: (member, held), (tarfile.TarInfo(name),)), "leads elsewhere")
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_file_is_refused(tar: Path, elsewhere: Any, kind: bytes) -> None:
    elsewhere()
    header = tarfile.TarInfo("files/exp_1/a1")
    header.type, header.linkname = kind, "/etc/passwd"
    refused(changed(tar, lambda member, held: (member, held), (header,)), "has no place in it")


@pytest.mark.parametrize(("field", "value", "why"), [("schema", "9999", "as new as that"), ("format", 2, "format 2")])
def test_a_backup_of_a_newer_version_says_which_to_run(tar: Path, elsewhere: Any, field: str, value: Any, why: str) -> None:
    elsewhere()

    def change(name: str, held: bytes) -> tuple[str, bytes]:
        return (name, json.dumps(json.loads(held) | {field: value}).encode()) if name == "manifest.json" else (name, held)

    refused(changed(tar, change), why)


def test_neither_files_nor_rows_are_overwritten(filled: Json, tar: Path, environment: Any, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"is not empty: .* is there"):
        backup.restore(tar)
    environment.setenv("SWEETSPOT_ARTIFACTS", str(tmp_path / "empty"))
    settings.cache_clear()
    with pytest.raises(BackupError, match="the database is not empty"):
        backup.restore(tar)
    with open_session() as session:
        assert session.get(Experiment, filled["done"]).state == "succeeded"
    with pytest.raises(BackupError, match="there already"):
        backup.make(tar)


def test_an_older_backup_is_loaded_as_it_was_and_migrated(filled: Json, tar: Path, elsewhere: Any) -> None:
    """One that the version before this one's tables made has no tallies."""

    def older(name: str, held: bytes) -> tuple[str, bytes] | None:
        if name == "manifest.json":
            manifest = json.loads(held) | {"schema": "0005"}
            del manifest["columns"]["tallies"], manifest["members"]["database/tallies"]
            return name, json.dumps(manifest).encode()
        return None if name == "database/tallies" else (name, held)

    old = changed(tar, older)
    elsewhere()
    command.upgrade(config(), "head")  # as where `sweetspot up` has been
    backup.restore(old)
    assert served("/readyz").json()["checks"]["database"] == "ok"
    assert served(f"/v1/experiments/{filled['done']}").json()["state"] == "succeeded"


def test_a_database_of_another_version_is_not_backed_up(filled: Json, tmp_path: Path, elsewhere: Any) -> None:
    elsewhere()
    with pytest.raises(BackupError, match="version None"):
        backup.make(tmp_path / "b.tar")
    assert [path.name for path in tmp_path.glob("*.tar*")] == []


# On the command line


def sweetspot(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL", "SWEETSPOT_ARTIFACTS")}
    command = [sys.executable, "-m", "app.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=kept | environment)


def test_into_a_data_folder_of_its_own_and_out_again(tar: Path, tmp_path: Path) -> None:
    """The embedded server runs for as long as it is needed."""
    folder = tmp_path / "data"
    restored = sweetspot("restore", tar, "--data-dir", folder)
    assert (restored.returncode, "tables of version" in restored.stdout) == (0, True), restored.stderr
    assert not (folder / "postgres" / "postmaster.pid").exists()
    again = sweetspot("backup", tmp_path / "again.tar", "--data-dir", folder)
    assert again.returncode == 0, again.stderr
    with tarfile.open(tar) as one, tarfile.open(tmp_path / "again.tar") as other:
        assert set(other.getnames()) == set(one.getnames())
    twice = sweetspot("restore", tar, "--data-dir", folder)
    assert twice.returncode == 1
    assert twice.stderr.startswith("error: ") and "is not empty" in twice.stderr
    swept = sweetspot("gc", "--dry-run", "--data-dir", folder)
    assert (swept.returncode, swept.stderr) == (0, "would remove 0 bytes in 0 places\n")


def test_no_table_numbers_its_rows_by_a_sequence_that_a_restore_would_have_to_set(database: Servers) -> None:
    with psycopg.connect(database.database_url) as link:
        assert link.execute("SELECT count(*) FROM pg_sequences").fetchone() == (0,)


def test_unfinished_estimates_keep_their_arrays(filled: Json, work: Any, tmp_path: Path, elsewhere: Any) -> None:
    row = {"id": "mie_1", "name": "m", "spec": {}, "sha256": "0" * 64, "size": 3, "progress": {}}
    work.write(lambda session: session.add(MiEstimate(**row)))
    files.arrays("mie_1").parent.mkdir(parents=True)
    files.arrays("mie_1").write_bytes(b"x,y")
    backup.make(tmp_path / "b.tar")
    elsewhere()
    backup.restore(tmp_path / "b.tar")
    assert files.arrays("mie_1").read_bytes() == b"x,y"


def test_what_finishes_meanwhile_keeps_its_files_until_they_are_copied(
    filled: Json, api: TestClient, work: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Where the backup is restored it will not have finished, and wants them."""
    row = {"id": "mie_1", "name": "m", "spec": {}, "sha256": "0" * 64, "size": 3, "progress": {}}
    work.write(lambda session: session.add(MiEstimate(**row)))
    files.arrays("mie_1").parent.mkdir(parents=True)
    files.arrays("mie_1").write_bytes(b"x,y")
    api.post("/v1/datasets", files={"file": ("b.npz", b"no arrays")}, data={"name": "bad"})
    decoding = work.write(lambda session: leases.claim_dataset(session, "w1@host/17", 60))
    copy = backup._copy_files

    def tidied() -> set[Path]:
        work.write(datasets.tidy), work.write(mi_estimates.tidy)
        return {path for path in (files.arrays("mie_1"), files.blob(decoding.spec["sha256"])) if path.exists()}

    def then(*arguments: Any) -> None:
        work.write(lambda session: mi_estimates.cancel(session, "mie_1"))
        work.write(lambda session: leases.fail(session, decoding, {"code": "user", "message": "no"}))
        assert len(tidied()) == 2
        copy(*arguments)

    monkeypatch.setattr(backup, "_copy_files", then)
    assert backup.make(tmp_path / "b.tar").faults == {}
    assert tidied() == set()


def test_a_data_folder_without_a_database_is_not_given_one(tmp_path: Path) -> None:
    for name in ("backup", "gc"):
        done = sweetspot(name, *([tmp_path / "b.tar"] if name == "backup" else []), "--data-dir", tmp_path / "nothing")
        assert done.returncode == 1
        assert done.stderr == f"error: there is no database in {tmp_path / 'nothing'}, and DATABASE_URL names none\n"
    assert not (tmp_path / "nothing").exists()
