"""One of several processes that pretrain together: `python -m workers.rank SPEC FOLDER`, started by torchrun for the runner.

The first of them tells what happens, in lines of JSON on its standard output, and leaves checkpoints in the folder.
"""

import os

from workers.parent import die_with

if __name__ == "__main__":  # before the long imports: torchrun may be gone by their end, and nobody would wait for us
    die_with(os.getppid())

import argparse
import json
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from app.settings import settings
from ml import experiment
from ml.datasets import Library
from ml.events import Event, Metric, Progress, Stage
from ml.spec import ExperimentSpec
from workers import checkpoints, packing
from workers.together import SAYS

REPORT_EVERY = 0.2  # seconds between lines about progress


def main() -> None:
    """Pretrain with the others; the first of us tells, and keeps checkpoints."""
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
        out_of_memory = isinstance(error, torch.OutOfMemoryError)
        _say({"fault": "MemoryError" if out_of_memory else type(error).__name__, "message": str(error)})
        raise
    finally:
        dist.destroy_process_group()


def _pretrain(spec: ExperimentSpec, keep: Path, device: torch.device, first: bool) -> None:
    library = Library(settings().datasets_dir, settings().uploads_dir, settings().prepared_dir)
    stopping = _Stopping(device)
    said, kept = 0.0, time.monotonic()
    for event in experiment.pretrain(spec, library, device, packing.newest(keep)):
        ends = isinstance(event, Progress) and event.snapshot is not None and (_is_last(event) or stopping.agreed())
        if first:
            now = time.monotonic()
            if not isinstance(event, Progress) or ends or now - said > REPORT_EVERY:
                said = now
                _tell(event)
            if isinstance(event, Progress) and event.snapshot and (ends or now - kept > settings().timers.checkpoint):
                kept = now
                with suppress(() if ends else OSError):  # a disk that refuses one before the last costs a resume at worst
                    checkpoints.store(keep, *packing.pack(event.snapshot()))
        if ends:
            return


def _is_last(event: Progress) -> bool:
    return event.stage == "pretrain" and event.step == event.total


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
    sys.stdout.write(f"{SAYS.decode()}{json.dumps(words)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
