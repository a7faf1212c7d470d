"""How soon the service does what it is asked: on an idle, warm `sweetspot up` with one worker."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from app.client import Sweetspot
from benchmarks.run import Figure

SPEC = {
    "dataset": {"name": "digits", "image_size": 8},
    "views": {"kind": "noise", "sigma": 0.5},
    "encoder": {"kind": "small_conv", "width": 4},
    "pretrain": {"steps": 5, "batch_size": 32},
    "mi": {"k": 32},
}


def measure() -> Iterator[Figure]:
    """From submission to `running`, to the first stage of the training process, and from cancel to `cancelled`."""
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder)) as client:
        _run(client, 0)  # the first loads the dataset and opens the connections
        claimed, begun = zip(*(_run(client, seed) for seed in range(1, 21)), strict=True)
        cancels = [_cancel(client) for _ in range(5)]
    yield _figure("submission to `running`, median of 20", statistics.median(claimed), 300)
    yield _figure("submission to the training process at work, median of 20", statistics.median(begun), 300)
    yield _figure("cancel to `cancelled`, the process gone, median of 5", statistics.median(cancels), 5000)


def _figure(what: str, milliseconds: float, limit: float) -> Figure:
    return Figure(
        what, f"{milliseconds:.0f} ms", f"{limit:.0f} ms", milliseconds / limit, f"<= {limit:.0f} ms", milliseconds <= limit
    )


def _run(client: Sweetspot, seed: int) -> tuple[float, float]:
    experiment = client.submit({**SPEC, "seed": seed}, wait=True)
    if experiment["state"] != "succeeded":
        raise RuntimeError(f"{experiment['id']} {experiment['state']}: {experiment['error']}")
    at = {event.type: event.data["at"] for event in reversed(list(client.events(experiment["id"]))) if "at" in event.data}
    time.sleep(0.3)  # idle again
    return _milliseconds(at["queued"], at["running"]), _milliseconds(at["queued"], at["stage"])


def _cancel(client: Sweetspot) -> float:
    experiment = client.submit({**SPEC, "pretrain": {"steps": 1_000_000, "batch_size": 32}})
    while client.experiment(experiment["id"])["progress"]["step"] < 2:
        time.sleep(0.1)
    asked = time.monotonic()
    client.cancel(experiment["id"])
    client.wait(experiment["id"])
    took = 1000 * (time.monotonic() - asked)
    time.sleep(6)  # the spare runner warms up
    return took


def _milliseconds(start: str, end: str) -> float:
    return 1000 * (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


@contextmanager
def _service(folder: Path) -> Iterator[Sweetspot]:
    with (folder / "up.log").open("wb") as log:
        command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--workers", "1", "--data-dir", str(folder)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while not (folder / "runtime.json").is_file():
            if process.poll() is not None:
                raise RuntimeError((folder / "up.log").read_text())
            time.sleep(0.2)
        time.sleep(10)  # the runner imports torch
        with Sweetspot(data_dir=folder) as client:
            yield client
    finally:
        process.terminate()
        process.wait()
