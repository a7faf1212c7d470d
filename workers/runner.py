"""The process that trains: `python -m workers.runner --parent PID`, started by a supervisor.

It imports torch, waits for work on its standard input, and carries it out, writing into the database for itself under the fence
of its claim. It says `alive` on its standard output as it goes and `idle` when it has let go of its work; after any error it
ends. It ends at once if its supervisor does, or if its lease is not renewed in time.
"""

import argparse
import errno
import hashlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, NoReturn

import torch
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from app.persistence import experiments, files, leases
from app.persistence.database import open_session
from app.persistence.leases import Claim, LeaseLost
from app.settings import settings
from ml import experiment, preview
from ml.datasets import DatasetInvalid, DatasetMissing, Library
from ml.datasets.ingest import ingest
from ml.events import Artifact, Checkpoint, Metric, Progress, Result, Stage
from ml.mi import estimate
from ml.mi.arrays import ArraysInvalid, load
from ml.optimiser import Diverged
from ml.spec import Dataset as DatasetSpec
from ml.spec import ExperimentSpec, MiEstimate, SpecError
from ml.weights import CheckpointInvalid
from workers import checkpoints, together
from workers.parent import die_with
from workers.process import EXIT_OUT_OF_MEMORY
from workers.together import TogetherLost, TooFewGPUs

REPORT_EVERY = 0.5  # seconds between writes of progress
EXIT_LEASE_LOST = 10
EXIT_TOGETHER_LOST = 11


class Stop(Exception):
    """SIGTERM came: let go, with a checkpoint if there is time."""


def main() -> None:
    """Work until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True, help="process id of the supervisor")
    parent = parser.parse_args().parent
    die_with(parent)
    line = Line()
    signal.signal(signal.SIGTERM, line.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(settings().threads)
    for claim in line.work():
        with _output_to(files.attempt_folder(claim.id, claim.attempt) / "log.txt", claim.kind == "experiment"):
            carry_out(claim, line)
        line.say("idle")
    _leave(0)


class Line:
    """The runner's end of the line to its supervisor."""

    def __init__(self) -> None:
        # What others print must not come between: the line keeps the pipe, and standard output becomes standard error.
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._claims: list[Claim] = []
        self._arrived = threading.Semaphore(0)
        self._lease_ends = float("inf")
        self._said = 0.0
        self.stopping = False
        threading.Thread(target=self._hear, args=(sys.stdin.buffer,), daemon=True).start()
        threading.Thread(target=self._watch_lease, daemon=True).start()

    def work(self) -> Iterator[Claim]:
        """Claims as they come; ends with SIGTERM."""
        while not self.stopping:
            if self._arrived.acquire(timeout=0.5):
                yield self._claims.pop(0)
                self._lease_ends = float("inf")

    def say(self, word: str) -> None:
        """Tell the supervisor; `alive` not more often than it cares."""
        now = time.monotonic()
        if word != "alive" or now - self._said > REPORT_EVERY:
            self._said = now
            self._out.write(json.dumps(word).encode() + b"\n")

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """SIGTERM: let go after the current step."""
        self.stopping = True

    def _hear(self, stdin: BinaryIO) -> None:
        for text in stdin:
            message = json.loads(text)
            self._lease_ends = time.monotonic() + message["lease"]
            if "claim" in message:
                self._claims.append(Claim(**message["claim"]))
                self._arrived.release()
        os._exit(0)  # the supervisor closed the line

    def _watch_lease(self) -> None:
        """Whoever cannot be vouched for must not go on, not even inside a long computation."""
        while True:
            time.sleep(0.25)
            if time.monotonic() > self._lease_ends:
                os._exit(EXIT_LEASE_LOST)


def carry_out(claim: Claim, line: Line) -> None:
    """Do the work of a claim, and say in the database how it ended. Ends the process after any error."""
    try:
        if claim.kind == "preview":
            _make_preview(claim)
        elif claim.kind == "dataset":
            _decode(claim, line)
        elif claim.kind == "mi_estimate":
            _estimate(claim, line)
        else:
            _run_experiment(claim, line)
    except Stop:
        _leave(0)
    except LeaseLost:
        _leave(EXIT_LEASE_LOST)
    except TogetherLost:
        traceback.print_exc()
        _leave(EXIT_TOGETHER_LOST)  # as if this process had been lost: the next attempt goes on from their checkpoint
    except Exception as error:  # whatever went wrong belongs into the experiment's record
        traceback.print_exc()
        if _is_out_of_memory(error):
            _leave(EXIT_OUT_OF_MEMORY)
        _persist(lambda session: leases.fail(session, claim, _describe(error)))
        files.remove_folder(files.checkpoints_folder(claim.id))
        _leave(1)


def _run_experiment(claim: Claim, line: Line) -> None:
    spec = ExperimentSpec.model_validate(claim.spec)
    keep = files.checkpoints_folder(claim.id)
    report = Report(claim)
    last_checkpoint = time.monotonic()
    if not keep.exists():
        _inherit(claim, keep)
    resumed = checkpoints.newest(keep)
    if resumed is not None:
        print(f"going on from step {resumed.step}", flush=True)  # noqa: T201 - it goes into the attempt's log
    several = spec.pretrain.processes > 1
    if several:
        resumed = _train_together(spec, keep, report, line)
    for event in experiment.run(spec, _library(), _device(), resumed):
        line.say("alive")
        if several and event in (Stage("data"), Stage("pretrain")):
            continue  # they are over
        report.tell(event)
        if isinstance(event, Progress):
            if event.snapshot and (line.stopping or time.monotonic() - last_checkpoint > settings().timers.checkpoint):
                _keep(keep, event.snapshot())
                last_checkpoint = time.monotonic()
            if line.stopping:
                raise Stop
    report.succeed()
    files.remove_folder(keep)


def _inherit(claim: Claim, keep: Path) -> None:
    """Take over the checkpoints of a cancelled experiment that this one retries; without them it begins afresh, and no worse."""
    try:
        with open_session() as session:
            retried = experiments.cancelled_twins(session, claim.id)
        folders = [folder for folder in map(files.checkpoints_folder, retried) if folder.is_dir()]
        if folders:
            keep.parent.mkdir(parents=True, exist_ok=True)
            folders[0].replace(keep)
    except (SQLAlchemyError, OSError) as error:
        print(f"nothing could be taken over: {error}", flush=True)  # noqa: T201 - it goes into the attempt's log


def _train_together(spec: ExperimentSpec, keep: Path, report: "Report", line: Line) -> Checkpoint | None:
    """Let processes that share the batches pretrain; the checkpoint that they leave at its end."""
    try:
        with together.start(spec, keep) as processes:
            for event in processes.events():
                if event is not None or processes.starting:
                    line.say("alive")
                if event is not None:
                    report.tell(event)
                if line.stopping:
                    processes.stop()
    except TogetherLost:
        if not line.stopping:  # with the runner torchrun is told to end, too
            raise
    if line.stopping:
        raise Stop
    return checkpoints.newest(keep)


class Report:
    """What an attempt tells the database, not more often than anybody looks."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self._metrics: list[tuple[str, int, float]] = []
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._artifacts: list[dict[str, Any]] = []
        self._results: dict[str, Any] = {}
        self._progress: dict[str, Any] = {"stage": None, "step": 0, "total": None, "rate": None, "eta_s": None}
        self._stage_began: tuple[float, int | None] = (time.monotonic(), None)
        self._reported = 0.0

    def tell(self, event: Any) -> None:
        """Take in one event; write if it is time. Raises LeaseLost."""
        match event:
            case Stage(name):
                self.begin(name)
            case Progress(stage, step, total):
                self.step(stage, step, total)
            case Metric(name, step, value):
                self._metrics.append((name, step, value))
            case Artifact(name, media_type, content):
                self._store(name, media_type, content)
            case Result(results):
                self._results = results

    def begin(self, stage: str) -> None:
        """A stage begins. Raises LeaseLost."""
        self._stage_began = (time.monotonic(), None)
        self._progress = {"stage": stage, "step": 0, "total": None, "rate": None, "eta_s": None}
        self._events.append(("stage", {"stage": stage}))
        self._write()

    def step(self, stage: str, step: int, total: int) -> None:
        """So much of the stage is done; written if it is time. Raises LeaseLost."""
        self._progress = self._pace(stage, step, total)
        if time.monotonic() - self._reported > REPORT_EVERY:
            self._write()

    def succeed(self) -> None:
        """Everything is there: say so, once. Raises LeaseLost."""
        self._write()

        def finish(session: Any) -> None:
            if not leases.has_succeeded(session, self.claim):  # as after a commit of unknown outcome
                leases.succeed(session, self.claim, self._results, self._artifacts)

        _persist(finish)

    def _pace(self, stage: str, step: int, total: int) -> dict[str, Any]:
        began, first = self._stage_began
        if first is None:  # a resumed stage does not begin at 1, and the steps before are not ours
            self._stage_began = (began, first := max(step - 1, 0))
        progress = {"stage": stage, "step": step, "total": total, "rate": None, "eta_s": None}
        if step > first:
            rate = (step - first) / max(time.monotonic() - began, 1e-6)
            progress |= {"rate": round(rate, 3), "eta_s": round((total - step) / rate, 3)}
        return progress

    def _write(self) -> None:
        """A database that is away for a moment does not stop the training; the lease decides for how long."""
        self._reported = time.monotonic()
        try:
            with open_session() as session:
                leases.report(session, self.claim, self._progress, self._metrics, self._events)
                session.commit()
            self._metrics, self._events = [], []
        except SQLAlchemyError as error:
            print(f"the database does not answer: {error}", flush=True)  # noqa: T201 - it goes into the attempt's log

    def _store(self, name: str, media_type: str, content: bytes) -> None:
        checkpoints.write_whole(files.attempt_folder(self.claim.id, self.claim.attempt) / name, content)
        digest = hashlib.sha256(content).hexdigest()
        self._artifacts.append({"name": name, "media_type": media_type, "size": len(content), "sha256": digest})


def _make_preview(claim: Claim) -> None:
    recipe = ExperimentSpec.model_validate(claim.spec).views
    png = preview.preview(DatasetSpec.model_validate(claim.spec["dataset"]), recipe, _library())
    _persist(lambda session: leases.succeed_preview(session, claim, png))


def _decode(claim: Claim, line: Line) -> None:
    """Decode an upload and show it, whole and in the transaction that says so."""
    from app.persistence import bell  # noqa: PLC0415 - a runner that only trains needs no broker

    report = Report(claim)
    report.begin("decode")

    def told(done: int, total: int) -> None:
        line.say("alive")
        report.step("decode", done, total)
        if line.stopping:
            raise Stop

    made = files.decoding_folder(claim.id, claim.attempt)
    woken = 0

    def finish(session: Any) -> None:
        nonlocal woken
        if not leases.has_succeeded(session, claim):  # as after a commit of unknown outcome
            woken = leases.succeed_dataset(session, claim, facts.model_dump(mode="json"))
            files.put_in_place(made, claim.id)

    try:
        facts = ingest(files.blob(claim.spec["sha256"]), claim.spec["layout"], made, told)
        _persist(finish)
    except DatasetInvalid as error:  # the file's fault: this process is none the worse for it
        reason = _describe(error)
        _persist(lambda session: leases.fail(session, claim, reason))
    finally:
        files.remove_folder(made.parent)
    bell.ring("default", woken)


def _estimate(claim: Claim, line: Line) -> None:
    """Estimate the information of two uploaded arrays."""
    report = Report(claim)
    report.begin("estimate")
    try:
        for event in estimate.run(MiEstimate.model_validate(claim.spec), *load(files.arrays(claim.id))):
            line.say("alive")
            report.tell(event)
            if line.stopping:
                raise Stop
    except ArraysInvalid as error:  # the file's fault: this process is none the worse for it
        reason = _describe(error)
        _persist(lambda session: leases.fail(session, claim, reason))
    else:
        report.succeed()


def _keep(folder: Path, checkpoint: Checkpoint) -> None:
    """A disk that refuses a checkpoint costs a resume at worst, not the training."""
    try:
        checkpoints.store(folder, checkpoint)
    except OSError as error:
        print(f"no checkpoint could be kept: {error}", flush=True)  # noqa: T201 - it goes into the attempt's log


def _persist(words: Any) -> None:
    """Write until the database takes it; the lease ends this if that takes too long. Raises LeaseLost."""
    while True:
        try:
            with open_session() as session:
                words(session)
                return session.commit()
        except (DataError, IntegrityError):
            raise  # trying again would not help
        except SQLAlchemyError as error:
            print(f"the database does not answer: {error}", flush=True)  # noqa: T201 - it goes into the attempt's log
            time.sleep(0.5)


def _describe(error: Exception) -> dict[str, Any]:
    if isinstance(error, DatasetMissing | DatasetInvalid | CheckpointInvalid | ArraysInvalid | TooFewGPUs | Diverged):
        return {"code": "user", "message": str(error)}
    if isinstance(error, SpecError):
        return {"code": "invalid", "message": f"{error.pointer}: {error.message}"}
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return {"code": "internal", "message": f"the disk of the worker is full, not the fault of what was asked: {error}"}
    return {"code": "internal", "message": f"{type(error).__name__}: {error}"}


def _is_out_of_memory(error: Exception) -> bool:
    """torch has a class of its own for GPUs alone; on a CPU its allocator raises RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _library() -> Library:
    return Library(settings().datasets_dir, settings().uploads_dir, settings().prepared_dir)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _leave(status: int) -> NoReturn:
    """End without tidying up: the thread that reads standard input cannot be made to let go of it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class _output_to:  # noqa: N801 - reads as a function in its `with`
    """Sends what this process prints into an attempt's log for as long as it lasts."""

    def __init__(self, path: Path, wanted: bool) -> None:
        self.path = path
        self.wanted = wanted

    def __enter__(self) -> None:
        if self.wanted:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._before = os.dup(2)
            with self.path.open("ab") as log:
                _print_into(log.fileno())

    def __exit__(self, *_: object) -> None:
        if self.wanted:
            _print_into(self._before)
            os.close(self._before)


def _print_into(descriptor: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for standard in (1, 2):
        os.dup2(descriptor, standard)


if __name__ == "__main__":
    main()
