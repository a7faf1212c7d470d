"""The runner's end of processes that pretrain together (`workers.rank`), a share of each batch each: torchrun starts them."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from app import launch
from app.settings import settings
from ml.datasets import DatasetInvalid, DatasetMissing
from ml.events import Event, Metric, Progress, Stage
from ml.optimiser import Diverged
from ml.spec import ExperimentSpec
from ml.weights import CheckpointInvalid
from workers import checkpoints
from workers.line import AttemptLost

SAYS = b"\x1e"  # before a line that is for the runner; all others are what libraries print
TICK = 0.5
STARTING = 120.0  # seconds of silence at most before the first word
FAULTS = {fault.__name__: fault for fault in (DatasetInvalid, DatasetMissing, CheckpointInvalid, Diverged, MemoryError)}


class TogetherLost(AttemptLost):
    """The processes ended before the training did, and nothing says that it was at fault."""


class TooFewGPUs(ValueError):
    """A worker that has GPUs has fewer than the processes that are asked for."""


def start(spec: ExperimentSpec, keep: Path) -> "Processes":
    """Let so many processes as the spec asks for pretrain, from the newest checkpoint in `keep`, in which they leave theirs.

    Raises TooFewGPUs.
    """
    asked, gpus = spec.pretrain.processes, torch.cuda.device_count()
    if 0 < gpus < asked:
        raise TooFewGPUs(f"{asked} processes need as many GPUs, and this worker has {gpus}; see `processes` in docs/deploy.md")
    keep.mkdir(parents=True, exist_ok=True)
    document = keep / "spec.json"
    checkpoints.write_whole(document, spec.model_dump_json().encode())
    torchrun = ["torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--max-restarts", "0"]
    arguments = ["--nproc-per-node", str(asked), "-m", "workers.rank", str(document), str(keep)]
    return Processes(launch.command([sys.executable, "-m", *torchrun, *arguments], signal.SIGKILL), asked)  # it dies with us


class Processes:
    """The runner's end of torchrun."""

    def __init__(self, command: list[str], count: int) -> None:
        threads = str(max(settings().threads // count, 1))
        self._torchrun = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        )
        self._starts_until = time.monotonic() + STARTING
        self._stopped = False
        self._told_to_stop: set[int] = set()

    @property
    def starting(self) -> bool:
        """Whether they still import and find each other, which takes longer than a step."""
        return time.monotonic() < self._starts_until

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._torchrun.kill()
        self._torchrun.wait()

    def events(self) -> Iterator[Event | None]:
        """What the first process tells, and None now and then, until the training ends.

        Raises TogetherLost, or what was at fault.
        """
        fault: dict[str, str] = {}
        for line in self._lines():
            if line is None:
                yield None
            elif not line.startswith(SAYS):
                sys.stdout.write(f"{line.decode(errors='replace')}\n")
            else:
                told = json.loads(line.removeprefix(SAYS))
                self._starts_until = 0.0
                fault = fault or (told if "fault" in told else {})  # those of the others follow from the first
                yield _event(told)
        status = self._torchrun.wait()
        if fault.get("fault") in FAULTS:
            raise FAULTS[fault["fault"]](fault["message"])
        if status != 0 and not self._stopped:
            raise TogetherLost(fault.get("message", f"the processes that train together ended with status {status}"))

    def stop(self) -> None:
        """Ask them to leave a checkpoint and end."""
        self._stopped = True
        for process in _children(self._torchrun.pid) - self._told_to_stop:
            self._told_to_stop.add(process)
            with suppress(ProcessLookupError):
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


def _children(process: int) -> set[int]:
    try:
        return {int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()}
    except (FileNotFoundError, ProcessLookupError):
        return set()
