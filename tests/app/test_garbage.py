"""What is removed because nobody has a use for it, and above all what is not."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, func, select, text, update

from app.embedded import Servers
from app.persistence import experiments, files, garbage, leases, workers
from app.persistence.database import engine, open_session
from app.persistence.models import Experiment, Metric, Preview, Sweep, Worker
from app.settings import settings
from workers import reconciler

Json = dict[str, Any]
Submit = Callable[..., Json]
NOWHERE = f"exp_{'f' * 32}"
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def folder(database: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An artifacts folder of this test's own."""
    monkeypatch.setenv("SWEETSPOT_ARTIFACTS", str(tmp_path / "artifacts"))
    settings.cache_clear()
    (tmp_path / "artifacts").mkdir()
    yield tmp_path / "artifacts"
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def keep(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def keep(**days: float) -> None:
        for name, value in days.items():
            monkeypatch.setenv(f"SWEETSPOT_KEEP_{name.upper()}_DAYS", str(value))
        settings.cache_clear()

    return keep


def left(path: Path, old: bool = True) -> Path:
    """A file that somebody left there, days ago unless told otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left")
    if old:
        for one in (path, *path.parents):
            if one == settings().artifacts_dir:
                break
            os.utime(one, (0, 0))
    return path


def there() -> set[str]:
    folder = settings().artifacts_dir
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def aged(experiment_id: str, days: float) -> None:
    """It finished so long ago."""
    with engine().begin() as link:
        then = func.clock_timestamp() - timedelta(days=days)
        link.execute(update(Experiment).where(Experiment.id == experiment_id).values(finished_at=then, created_at=then))


def collected() -> set[str]:
    """The files that go."""
    before = there()
    reconciler.collect_garbage()
    return before - there()


@pytest.fixture
def finished(submit: Submit, work: Any) -> Callable[..., str]:
    """An experiment in a terminal state; what it left is days old."""

    def finished(state: str, retry_of: str | None = None) -> str:
        submit()
        claim = work.claimed()
        if state == "cancelled":
            work.write(lambda session: experiments.cancel(session, claim.id))
            work.write(lambda session: leases.confirm_cancelled(session, claim))
        elif state == "failed":
            work.write(lambda session: leases.fail(session, claim, {"code": "user", "message": "no"}))
        else:
            work.succeed(claim, artifacts={"preview.png": b"png"})
            left(files.attempt_folder(claim.id, 1) / "preview.png")
        return str(claim.id)

    return finished


def test_just_the_right_ones_go(submit: Submit, work: Any, finished: Any) -> None:
    done, failed, cancelled = (finished(state) for state in ("succeeded", "failed", "cancelled"))
    submit()
    running = work.claimed().id
    queued = submit()["id"]
    orphans = [
        left(files.attempt_folder(NOWHERE, 1) / "preview.png"),  # of a deleted experiment
        left(files.attempt_folder(done, 2) / "encoder.safetensors"),  # of an attempt that lost
        left(files.attempt_folder(done, 1) / ".preview.png.17"),  # half written
        left(files.attempt_folder(failed, 1) / "preview.png"),  # of an attempt that came to nothing
        left(files.checkpoints_folder(done) / "1.safetensors"),
        left(files.checkpoints_folder(failed) / "1.safetensors"),
        left(files.checkpoints_folder(cancelled) / ".half"),
        left(files.incoming() / "half"),
        left(files.dataset_folder(f"ds_{'f' * 32}") / "x.npy"),
        left(files.blob("f" * 64)),
        left(files.arrays(f"mie_{'f' * 32}")),
        left(files.checkpoint("f" * 64)),
        left(files.description(files.checkpoint("e" * 64))),
        left(settings().artifacts_dir / ".restore-x" / "files" / "y"),
    ]
    kept = [
        files.attempt_folder(done, 1) / "preview.png",
        left(files.attempt_folder(done, 1) / files.LOG),
        left(files.attempt_folder(failed, 1) / files.LOG),
        left(files.attempt_folder(done, 2) / files.LOG),  # GET …/logs?attempt=2
        left(files.checkpoints_folder(cancelled) / "1.safetensors"),  # a retry goes on from it
        left(files.attempt_folder(running, 1) / "preview.png"),
        left(files.attempt_folder(running, 1) / ".half"),
        left(files.checkpoints_folder(running) / "1.safetensors"),
        left(files.checkpoints_folder(running) / ".half"),
        left(files.checkpoints_folder(queued) / "1.safetensors"),
        left(files.attempt_folder(queued, 1) / "preview.png"),
        left(settings().artifacts_dir / "mine.txt"),  # nothing of ours
    ]
    with open_session() as session:
        listed = garbage.find(session)
    below = {path for path in orphans for one in listed if path == one.path or one.path in path.parents}
    assert below == set(orphans)
    assert not {path for path in kept for one in listed if path == one.path or one.path in path.parents}
    assert {settings().artifacts_dir / name for name in collected()} == set(orphans)
    assert all(path.exists() for path in kept)
    assert collected() == set()


def test_nothing_young_goes(finished: Any) -> None:
    done = finished("succeeded")
    young = [
        left(files.attempt_folder(NOWHERE, 1) / "preview.png", old=False),
        left(files.attempt_folder(done, 2) / "encoder.safetensors", old=False),
        left(files.checkpoints_folder(done) / "1.safetensors", old=False),
        left(files.incoming() / "half", old=False),
        left(files.arrays(f"mie_{'f' * 32}"), old=False),
        left(files.checkpoint("f" * 64), old=False),
    ]
    os.utime(files.experiment_folder(NOWHERE), (0, 0))  # the folder is old, and something in it is not
    assert collected() == set()
    assert all(path.exists() for path in young)


def test_checkpoints_of_cancelled_experiments_stay_for_a_week(finished: Any, keep: Any) -> None:
    early, late = finished("cancelled"), finished("cancelled")
    left(files.checkpoints_folder(early) / "1.safetensors"), left(files.checkpoints_folder(late) / "1.safetensors")
    aged(early, 8), aged(late, 6)
    assert collected() == {f"{early}/checkpoints/1.safetensors"}
    keep(checkpoints=0)
    aged(late, 800)
    assert collected() == set()
    keep(checkpoints=1)
    assert collected() == {f"{late}/checkpoints/1.safetensors"}


def test_unless_an_unfinished_experiment_may_go_on_from_them(finished: Any, api: TestClient, work: Any) -> None:
    first = finished("cancelled")
    again = api.post(f"/v1/experiments/{first}/retry").json()["id"]
    api.post(f"/v1/experiments/{again}/cancel")
    last = api.post(f"/v1/experiments/{again}/retry").json()["id"]
    left(files.checkpoints_folder(first) / "1.safetensors")
    aged(first, 30), aged(again, 30)
    assert collected() == set(), "the last retries one that retried it"
    work.succeed(work.claimed())
    assert work.write(lambda session: experiments.get(session, last).state) == "succeeded"
    assert collected() == {f"{first}/checkpoints/1.safetensors"}


def test_a_retry_that_comes_meanwhile_waits_or_finds_them(finished: Any, api: TestClient) -> None:
    """Whichever comes first: either they are there for the retry, or they were gone when it was accepted."""
    first = finished("cancelled")
    left(files.checkpoints_folder(first) / "1.safetensors")
    aged(first, 30)
    with open_session() as session:
        assert garbage.retire(session)
        answers: list[Any] = []
        retrying = threading.Thread(target=lambda: answers.append(api.post(f"/v1/experiments/{first}/retry")))
        retrying.start()
        retrying.join(0.5)
        assert retrying.is_alive(), "it waits for the garbage to be taken away"
        session.commit()
        retrying.join()
    assert answers[0].status_code == 202
    assert not files.checkpoints_folder(first).exists()


def test_whoever_lists_and_whoever_retries_do_not_wait_for_each_other(finished: Any, api: TestClient) -> None:
    first, second = finished("cancelled"), finished("cancelled")
    listed = left(files.checkpoints_folder(first) / "1.safetensors").parent
    left(files.checkpoints_folder(second) / "1.safetensors")
    aged(first, 30), aged(second, 30)
    api.post(f"/v1/experiments/{second}/retry")
    with open_session() as session:
        assert [one.path for one in garbage.find(session)] == [listed]
        assert api.post(f"/v1/experiments/{first}/retry").status_code == 202
    with open_session() as session, open_session() as another:
        experiments.retry(session, second)
        assert garbage.find(another) == []


def test_an_experiment_that_begins_meanwhile_loses_nothing(submit: Submit, work: Any, monkeypatch: Any) -> None:
    """Begun between the listing of folders and the look at rows, and the other way round, with files as old as can be."""
    begun: list[str] = []

    def begin() -> None:
        submit()
        claim = work.claimed()
        begun.append(claim.id)
        left(files.attempt_folder(claim.id, 1) / "preview.png")
        left(files.checkpoints_folder(claim.id) / "1.safetensors")

    find = garbage._named

    def slowly(*arguments: Any) -> Any:
        begin()
        return find(*arguments)

    monkeypatch.setattr(garbage, "_named", slowly)
    left(files.attempt_folder(NOWHERE, 1) / "preview.png")
    for _ in range(3):
        collected()
        begin()
    stop = threading.Event()

    def keep_collecting() -> None:
        while not stop.is_set():
            reconciler.collect_garbage()

    collecting = threading.Thread(target=keep_collecting)
    collecting.start()
    for _ in range(10):
        begin()
    stop.set()
    collecting.join()
    assert len(begun) > 15
    assert all((files.attempt_folder(id, 1) / "preview.png").exists() for id in begun)
    assert all((files.checkpoints_folder(id) / "1.safetensors").exists() for id in begun)


def test_finished_experiments_are_kept_for_ever_by_default_and_as_long_as_wanted(
    finished: Any, keep: Any, api: TestClient
) -> None:
    early, late = finished("succeeded"), finished("succeeded")
    aged(early, 1000), aged(late, 20)
    assert collected() == set()
    keep(experiments=30)
    with open_session() as session:
        assert [one.path for one in garbage.find(session)] == [files.experiment_folder(early)]
    assert collected() == {f"{early}/a1/preview.png"}
    assert api.get(f"/v1/experiments/{early}").status_code == 404
    assert api.get(f"/v1/experiments/{late}").status_code == 200


def test_a_sweep_goes_as_a_whole_and_holds_what_it_shares(
    finished: Any, keep: Any, api: TestClient, sweep_spec: Json, work: Any
) -> None:
    old = api.post("/v1/sweeps", json=sweep_spec).json()["id"]
    members = work.finish_all(lambda spec: (2.0, 0.8))
    young = api.post("/v1/sweeps", json=sweep_spec | {"axis": {"path": "views.sigma", "values": [0.1]}}).json()["id"]
    for member in members:
        aged(member, 100)
    with engine().begin() as link:
        link.execute(update(Sweep).where(Sweep.id == old).values(created_at=func.clock_timestamp() - 100 * DAY))
    keep(experiments=30)
    reconciler.collect_garbage()
    assert api.get(f"/v1/sweeps/{old}").status_code == 404
    assert api.get(f"/v1/sweeps/{young}").json()["counts"]["succeeded"] == 2, "it reused them"
    with open_session() as session:
        assert session.scalar(select(func.count()).select_from(Experiment)) == 2


@pytest.fixture
def old_sweeps(api: TestClient, sweep_spec: Json, work: Any, keep: Any) -> list[str]:
    """Two, each with two experiments of its own, which may all go."""
    for sigma in (0.1, 0.2):
        assert api.post("/v1/sweeps", json=sweep_spec | {"axis": {"path": "views.sigma", "values": [sigma]}}).status_code == 202
    for member in work.finish_all(lambda spec: (2.0, 0.8)):
        aged(member, 100)
    keep(experiments=30)
    with engine().begin() as link:
        link.execute(update(Sweep).values(created_at=func.clock_timestamp() - 100 * DAY))
        return list(link.scalars(select(Sweep.id).order_by(Sweep.id)))


def retired() -> tuple[int, int]:
    """Sweeps and experiments that are there after a round."""
    with open_session() as session:
        assert garbage.retire(session)
        session.commit()
        return tuple(session.scalar(select(func.count()).select_from(model)) for model in (Sweep, Experiment))


def test_what_does_not_go_in_one_round_goes_in_the_next(old_sweeps: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(garbage, "MOST", 1)
    assert retired() == (1, 2), "the experiments of the other one are still held"
    assert retired() == (0, 0)


def test_what_another_deletes_or_finds_a_use_for_meanwhile_is_passed_over(
    finished: Any, keep: Any, api: TestClient, submit: Submit, spec: Json, sweep_spec: Json, work: Any, monkeypatch: Any
) -> None:
    """Between the list and its turn, one is deleted and another becomes part of a new sweep; the third goes."""
    deleted, gone = finished("failed"), finished("failed")
    reused = finished("succeeded")
    for one in (deleted, reused, gone):
        aged(one, 100)
    keep(experiments=30)

    def then(session: Any) -> list[str]:
        assert api.delete(f"/v1/experiments/{deleted}").status_code == 204
        axis = {"path": "views.sigma", "values": [spec["views"]["sigma"]]}
        assert api.post("/v1/sweeps", json=sweep_spec | {"axis": axis}).json()["counts"]["succeeded"] == 1
        return [deleted, reused, gone]

    monkeypatch.setattr(garbage, "_old_experiments", then)
    assert retired()[0] == 1
    assert [api.get(f"/v1/experiments/{one}").status_code for one in (deleted, reused, gone)] == [404, 200, 404]


def test_so_is_a_sweep(old_sweeps: list[str], api: TestClient, monkeypatch: Any) -> None:
    monkeypatch.setattr(garbage, "_old_sweeps", lambda _: [NOWHERE, *old_sweeps])
    assert api.delete(f"/v1/sweeps/{old_sweeps[0]}").status_code == 204
    assert retired() == (0, 0)


def test_metrics_go_when_they_are_told_to(finished: Any, keep: Any, work: Any) -> None:
    done = finished("succeeded")
    work.write(lambda session: session.add(Metric(experiment_id=done, attempt=1, name="loss", step=1, value=0.5)))
    aged(done, 100)
    for days, count in ((0, 1), (200, 1), (50, 0)):
        keep(metrics=days)
        reconciler.collect_garbage()
        with open_session() as session:
            assert session.scalar(select(func.count()).select_from(Metric)) == count


def test_metrics_go_a_few_at_a_time_and_those_that_went_stay_gone(finished: Any, keep: Any, work: Any, monkeypatch: Any) -> None:
    done = finished("succeeded")
    rows = [{"experiment_id": done, "attempt": 1, "name": "loss", "step": step, "value": 0.5} for step in range(7)]
    work.write(lambda session: session.add_all(Metric(**row) for row in rows))
    aged(done, 100), keep(metrics=50)
    monkeypatch.setattr(garbage, "METRICS", 3, raising=False)
    deleted: list[int] = []

    def slow(link: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE FROM metrics"):
            deleted.append(cursor.rowcount)
            if len(deleted) == 2:
                raise TimeoutError

    event.listen(engine(), "after_cursor_execute", slow)
    try:
        with pytest.raises(TimeoutError), open_session() as session:
            garbage.retire(session)
        with open_session() as session:
            assert session.scalar(select(func.count()).select_from(Metric)) == 4
        reconciler.collect_garbage()
    finally:
        event.remove(engine(), "after_cursor_execute", slow)
    assert deleted == [3, 3, 3, 1, 0]
    with open_session() as session:
        assert session.scalar(select(func.count()).select_from(Metric)) == 0


@pytest.mark.parametrize(("days", "count"), [(0, 1), (3, 1), (1, 0)])
def test_previews_are_kept_as_long_as_wanted(work: Any, keep: Any, days: float, count: int) -> None:
    then = func.clock_timestamp() - 2 * DAY
    work.write(lambda session: session.add(Preview(id="prv_1", spec={}, state="succeeded", finished_at=then)))
    keep(previews=days)
    work.write(leases.reconcile)
    with open_session() as session:
        assert session.scalar(select(func.count()).select_from(Preview)) == count


def test_a_worker_of_last_week_is_forgotten(work: Any) -> None:
    for name in ("old", "new"):
        work.write(lambda session, name=name: workers.hello(session, name, {}))
    with engine().begin() as link:
        link.execute(text("UPDATE workers SET seen_at = seen_at - interval '8 days' WHERE name = 'old'"))
    reconciler.collect_garbage()
    with open_session() as session:
        assert session.scalars(select(Worker.name)).all() == ["new"]


def test_nothing_goes_while_a_backup_runs(database: Servers) -> None:
    left(files.attempt_folder(NOWHERE, 1) / "preview.png")
    with psycopg.connect(database.database_url, autocommit=True) as link:
        link.execute("SELECT pg_advisory_lock_shared(%s)", [files.LOCK])
        assert collected() == set()
    assert collected() == {f"{NOWHERE}/a1/preview.png"}


def test_files_may_take_longer_than_a_transaction_may_be_idle(database: Servers, monkeypatch: Any) -> None:
    """Whoever removes them is alone with it to the end, and comes to an end."""
    orphans = [left(files.incoming() / name) for name in ("a", "b")] + [left(files.attempt_folder(NOWHERE, 1) / "preview.png")]
    free: list[bool] = []

    def slowly(path: Path, remove: Callable[[Path], None] = files.remove_path) -> None:
        time.sleep(0.4)
        with psycopg.connect(database.database_url, autocommit=True) as link:
            free.append(link.execute("SELECT pg_try_advisory_lock_shared(%s)", [files.LOCK]).fetchone()[0])
        remove(path)

    def impatient(dialect: Any, record: Any, positional: Any, named: Json) -> None:
        named["options"] = named["options"].replace("session_timeout=60s", "session_timeout=200ms")

    monkeypatch.setattr(files, "remove_path", slowly)
    event.listen(engine(), "do_connect", impatient)
    engine().dispose()
    try:
        with open_session() as session:
            garbage.remove(session)
            session.commit()
    finally:
        event.remove(engine(), "do_connect", impatient)
        engine().dispose()
    assert free == [False] * 3
    assert not any(orphan.exists() for orphan in orphans)
    with files.alone() as alone:
        assert alone, "and then another may"


@pytest.mark.parametrize("days", ["-1", "nan", "a week"])
def test_days_that_are_none_are_refused(keep: Any, days: str) -> None:
    from app.settings import SettingsError  # noqa: PLC0415

    keep(checkpoints=days)
    with pytest.raises(SettingsError):
        settings()


def test_on_the_command_line(database: Servers) -> None:
    orphan = left(files.attempt_folder(NOWHERE, 1) / "preview.png")

    def gc(*options: str) -> tuple[str, str]:
        command = [sys.executable, "-m", "app.cli", "gc", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout, done.stderr

    line = f"{4:>14}  {files.experiment_folder(NOWHERE)}  of no experiment\n"
    assert gc("--dry-run") == (line, "would remove 4 bytes in 1 places\n")
    assert orphan.exists()
    assert gc() == (line, "removed 4 bytes in 1 places\n")
    assert not orphan.exists()
    assert gc() == ("", "removed 0 bytes in 0 places\n")
