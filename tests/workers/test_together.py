"""Several processes at one experiment, which torchrun starts for the runner."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

Submit = Callable[..., str]
StateOf = Callable[[str], dict[str, Any]]
Training = Callable[[str], None]
Events = Callable[[str], list[dict[str, Any]]]
Exists = Callable[[int], bool]
LONG = 1_000_000  # steps that nobody waits for


def together(worker: Any) -> tuple[list[int], list[int]]:
    """Process ids of torchrun, and of what trains together, under it."""
    found: tuple[list[int], list[int]] = ([], [])
    for pid in worker.family():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"workers.rank" in command:
            found[b"torch.distributed.run" not in command].append(pid)
    return found


@pytest.mark.usefixtures("worker")
def test_two_processes_train_to_the_numbers_of_one(api: TestClient, submit: Submit, finished: StateOf, events: Events) -> None:
    pretrain = {"steps": 12, "batch_size": 64}
    two, one = (finished(submit(12, pretrain=pretrain | {"processes": processes})) for processes in (2, 1))
    assert two["state"] == "succeeded", two["error"]
    losses = [api.get(f"/v1/experiments/{found['id']}/metrics?name=loss").json()["data"] for found in (two, one)]
    assert [point["step"] for point in losses[0]] == list(range(1, 13))
    assert [point["value"] for point in losses[0]] == pytest.approx([point["value"] for point in losses[1]], rel=1e-3)
    assert two["results"]["mi"]["infonce"]["value"] == pytest.approx(one["results"]["mi"]["infonce"]["value"], abs=0.02)
    stages = [event["data"]["stage"] for event in events(two["id"]) if event["type"] == "stage"]
    assert stages == ["data", "pretrain", "information", "quality", "tasks"]


def test_cancelled_or_killed_the_processes_end_with_their_runner(
    worker: Any, api: TestClient, submit: Submit, training: Training, eventually: Any, state_of: StateOf, exists: Exists
) -> None:
    endless = {"steps": LONG, "batch_size": 64, "processes": 2}
    killed = submit(LONG, pretrain=endless)
    training(killed)
    (torchrun,), ranks = together(worker)
    assert len(ranks) == 2
    os.killpg(os.getpgid(torchrun), signal.SIGKILL)  # the runner's
    eventually(lambda: not any(exists(pid) for pid in ranks))
    eventually(lambda: state_of(killed)["attempt"] == 2)
    eventually(lambda: len(together(worker)[1]) == 2)
    api.post(f"/v1/experiments/{killed}/cancel")
    eventually(lambda: state_of(killed)["state"] == "cancelled")
    assert together(worker) == ([], [])
