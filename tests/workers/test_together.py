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
LONG = 1_000_000  # steps that nobody waits for


def together(worker: Any) -> list[int]:
    """Process ids of what trains together under it."""
    commands = {pid: Path(f"/proc/{pid}/cmdline") for pid in worker.family()}
    return [pid for pid, command in commands.items() if command.exists() and b"workers.together" in command.read_bytes()]


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
    new_worker: Callable[..., Any], api: TestClient, submit: Submit, training: Training, eventually: Any, state_of: StateOf
) -> None:
    worker = new_worker()
    endless = {"steps": LONG, "batch_size": 64, "processes": 2}
    killed = submit(LONG, pretrain=endless)
    training(killed)
    assert len(together(worker)) >= 2
    (busy,) = {os.getsid(pid) for pid in worker.runners() if any(os.getsid(pid) == os.getpgid(of) for of in together(worker)[:1])}
    os.killpg(busy, signal.SIGKILL)
    eventually(lambda: state_of(killed)["attempt"] == 2)
    eventually(lambda: state_of(killed)["progress"]["stage"] == "pretrain" and len(together(worker)) == 3)
    api.post(f"/v1/experiments/{killed}/cancel")
    eventually(lambda: state_of(killed)["state"] == "cancelled")
    assert not together(worker)
