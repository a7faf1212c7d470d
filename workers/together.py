"""Processes that pretrain together, a share of each batch each: torchrun starts them, and the first tells the runner.

`start` is the runner's end; `python -m workers.together` is one of the processes. What they tell are lines of JSON.
"""

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

from app.settings import settings
from ml import experiment
from ml.datasets import DatasetInvalid, DatasetMissing, Library
from ml.events import Event, Metric, Progress, Stage
from ml.experiment import Diverged
from ml.spec import ExperimentSpec
from ml.weights import CheckpointInvalid
from workers import checkpoints
from workers.process import die_with

CHECKPOINT_EVERY = 60.0  # seconds of training that a lost attempt may cost
REPORT_EVERY = 0.2  # seconds between lines about progress
TICK = 0.5
USERS_FAULTS = {fault.__name__: fault for fault in (DatasetInvalid, DatasetMissing, CheckpointInvalid, Diverged)}


class TogetherFailed(RuntimeError):
    """The processes ended before the training did, and not because it was at fault."""


def start(spec: ExperimentSpec, keep: Path) -> "Processes":
    """Let so many processes as the spec asks for pretrain, from the newest checkpoint in `keep`, in which they leave theirs."""
    keep.mkdir(parents=True, exist_ok=True)
    document = keep / "spec.json"
    checkpoints.write_whole(document, spec.model_dump_json().encode())
    torchrun = ["torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--max-restarts", "0"]
    arguments = ["--nproc-per-node", str(spec.pretrain.processes), "-m", "workers.together", str(document), str(keep)]
    return Processes([sys.executable, "-m", *torchrun, *arguments], spec.pretrain.processes)


class Processes:
    """The runner's end of torchrun."""

    def __init__(self, command: list[str], count: int) -> None:
        threads = str(max(settings().threads // count, 1))
        self._torchrun = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        )
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._torchrun.kill()
        self._torchrun.wait()

    def events(self) -> Iterator[Event | None]:
        """What the first process tells, and None now and then, until the training ends.

        Raises TogetherFailed, or what was at fault where that is the user's.
        """
        told: dict[str, str] = {}
        for line in self._lines():
            if line is None or not line.startswith(b"{"):
                yield None  # nothing, or what others print
                continue
            told = json.loads(line)
            yield _event(told)
        status = self._torchrun.wait()
        if fault := USERS_FAULTS.get(told.get("fault", "")):
            raise fault(told["message"])
        if status != 0 and not self._stopped:
            raise TogetherFailed(told.get("message", f"the processes that train together ended with status {status}"))

    def stop(self) -> None:
        """Ask them to leave a checkpoint and end."""
        if not self._stopped:
            self._stopped = True
            for process in _children(self._torchrun.pid):
                os.kill(process, signal.SIGTERM)

    def _lines(self) -> Iterator[bytes | None]:
        assert self._torchrun.stdout, "it is a pipe"
        received = b""
        while True:
            if not select.select([self._torchrun.stdout], [], [], TICK)[0]:
                yield None
                continue
            chunk = os.read(self._torchrun.stdout.fileno(), 65536)
            if not chunk:
                return
            *lines, received = (received + chunk).split(b"\n")
            yield from lines


def _event(told: dict[str, Any]) -> Event | None:
    if "stage" in told:
        return Progress(told["stage"], told["step"], told["total"], None) if "step" in told else Stage(told["stage"])
    return Metric(told["metric"], told["step"], told["value"]) if "metric" in told else None


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


# One of the processes -------------------------------------------------------------------------------------------------


def main() -> None:
    """Pretrain with the others; the first of us tells, and keeps checkpoints."""
    die_with(os.getppid())
    parser = argparse.ArgumentParser()
    parser.add_argument("spec", type=Path)
    parser.add_argument("keep", type=Path)
    arguments = parser.parse_args()
    spec = ExperimentSpec.model_validate_json(arguments.spec.read_bytes())
    torch.set_num_threads(max(settings().threads // spec.pretrain.processes, 1))
    on_gpus = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpus else torch.device("cpu")
    if on_gpus:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpus else "gloo")
    first = dist.get_rank() == 0
    try:
        _pretrain(spec, arguments.keep, device, first)
    except Exception as error:
        if first:
            _say({"fault": type(error).__name__, "message": str(error)})
        raise
    finally:
        dist.destroy_process_group()


def _pretrain(spec: ExperimentSpec, keep: Path, device: torch.device, first: bool) -> None:
    library = Library(settings().datasets_dir, settings().uploads_dir, settings().prepared_dir)
    stopping = _Stopping(device)
    said, kept = 0.0, time.monotonic()
    for event in experiment.pretrain(spec, library, device, checkpoints.newest(keep)):
        ends = isinstance(event, Progress) and event.stage == "pretrain" and (event.step == event.total or stopping.agreed())
        if first:
            now = time.monotonic()
            if not isinstance(event, Progress) or ends or now - said > REPORT_EVERY:
                said = now
                _tell(event)
            if isinstance(event, Progress) and event.snapshot and (ends or now - kept > CHECKPOINT_EVERY):
                kept = now
                checkpoints.store(keep, event.snapshot())
        if ends:
            return


class _Stopping:
    """Whether any process was told to end, on which all agree at each step: none may wait for one that has left."""

    def __init__(self, device: torch.device) -> None:
        self._told = torch.zeros((), device=device)
        signal.signal(signal.SIGTERM, self._hear)

    def agreed(self) -> bool:
        """To be asked by all of them."""
        anyone = self._told.clone()
        dist.all_reduce(anyone, dist.ReduceOp.MAX)
        return bool(anyone)

    def _hear(self, _signal: int, _frame: FrameType | None) -> None:
        self._told.fill_(1)


def _tell(event: Event) -> None:
    match event:
        case Stage(name):
            _say({"stage": name})
        case Progress(stage, step, total):
            _say({"stage": stage, "step": step, "total": total})
        case Metric(name, step, value):
            _say({"metric": name, "step": step, "value": value})


def _say(words: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
