"""What a runner is for: experiments, previews, uploads and estimates, with torch."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from app.persistence import bell, files, leases
from app.persistence.leases import Claim
from app.settings import settings
from ml import experiment, preview
from ml.datasets import DatasetInvalid, DatasetMissing, Library
from ml.datasets.ingest import ingest
from ml.events import Checkpoint, Event, Stage
from ml.mi import estimate
from ml.mi.arrays import ArraysInvalid, load
from ml.optimiser import Diverged
from ml.spec import Dataset as DatasetSpec
from ml.spec import ExperimentSpec, MiEstimate, SpecError
from ml.weights import CheckpointInvalid
from workers import course, packing, together
from workers.line import AttemptLost, Line, Stop
from workers.report import Report, persist
from workers.together import TooFewGPUs


def prepare() -> None:
    """So many threads as the settings say."""
    torch.set_num_threads(settings().threads)


def run_experiment(claim: Claim, line: Line) -> None:
    """Pretrain and measure."""
    keep = course.begin(claim)
    report = Report(claim)
    course.follow(_events(ExperimentSpec.model_validate(claim.spec), keep, report, line), keep, report, line, packing.pack)


def _events(spec: ExperimentSpec, keep: Path, report: Report, line: Line) -> Iterator[Event]:
    resumed = packing.newest(keep)
    if resumed is not None:
        print(f"going on from step {resumed.step}", flush=True)  # noqa: T201 - it goes into the attempt's log
    several = spec.pretrain.processes > 1
    if several:
        resumed = _train_together(spec, keep, report, line)
    over = (Stage("data"), Stage("pretrain")) if several else ()
    yield from (event for event in experiment.run(spec, _library(), _device(), resumed) if event not in over)


def _train_together(spec: ExperimentSpec, keep: Path, report: Report, line: Line) -> Checkpoint | None:
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
    except AttemptLost:
        if not line.stopping:  # with the runner torchrun is told to end, too
            raise
    if line.stopping:
        raise Stop
    return packing.newest(keep)


def make_preview(claim: Claim, line: Line) -> None:
    """Draw view pairs."""
    recipe = ExperimentSpec.model_validate(claim.spec).views
    png = preview.preview(DatasetSpec.model_validate(claim.spec["dataset"]), recipe, _library())
    persist(lambda session: leases.succeed_preview(session, claim, png))


def decode(claim: Claim, line: Line) -> None:
    """Decode an upload and show it, whole and in the transaction that says so."""
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
        persist(finish)
    except DatasetInvalid as error:  # the file's fault: this process is none the worse for it
        reason = describe(error)
        persist(lambda session: leases.fail(session, claim, reason))
    finally:
        files.remove_folder(made.parent)
    bell.ring("default", woken)


def estimate_information(claim: Claim, line: Line) -> None:
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
        reason = describe(error)
        persist(lambda session: leases.fail(session, claim, reason))
    else:
        report.succeed()


def describe(error: Exception) -> dict[str, Any]:
    """Whose fault it was, and what it was."""
    if isinstance(error, DatasetMissing | DatasetInvalid | CheckpointInvalid | ArraysInvalid | TooFewGPUs | Diverged):
        return {"code": "user", "message": str(error)}
    if isinstance(error, SpecError):
        return {"code": "invalid", "message": f"{error.pointer}: {error.message}"}
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return {"code": "internal", "message": f"the disk of the worker is full, not the fault of what was asked: {error}"}
    return {"code": "internal", "message": f"{type(error).__name__}: {error}"}


def is_out_of_memory(error: Exception) -> bool:
    """torch has a class of its own for GPUs alone; on a CPU its allocator raises RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


WORK = {"experiment": run_experiment, "preview": make_preview, "dataset": decode, "mi_estimate": estimate_information}


def _library() -> Library:
    return Library(settings().datasets_dir, settings().uploads_dir, settings().prepared_dir)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
