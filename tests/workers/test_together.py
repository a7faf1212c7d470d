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


def test_killed_or_cancelled_the_processes_end_together_and_with_their_runner(
    worker: Any, api: TestClient, submit: Submit, training: Training, eventually: Any, state_of: StateOf, exists: Exists
) -> None:
    endless = submit(LONG, pretrain={"steps": LONG, "batch_size": 64, "processes": 2})
    training(endless)
    (torchrun,), ranks = together(worker)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    eventually(lambda: state_of(endless)["attempt"] == 2)
    assert not any(exists(pid) for pid in (torchrun, *ranks))
    assert state_of(endless)["error"]["code"] == "lost"
    eventually(lambda: len(together(worker)[1]) == 2)
    (torchrun,), ranks = together(worker)
    os.killpg(os.getpgid(torchrun), signal.SIGKILL)  # the runner's
    eventually(lambda: not any(exists(pid) for pid in ranks))
    eventually(lambda: state_of(endless)["attempt"] == 3 and len(together(worker)[1]) == 2)
    api.post(f"/v1/experiments/{endless}/cancel")
    eventually(lambda: state_of(endless)["state"] == "cancelled")
    assert together(worker) == ([], [])


def test_a_worker_that_is_told_to_end_before_they_have_begun_gives_the_experiment_back(
    new_worker: Callable[..., Any], worker: Any, submit: Submit, eventually: Any, state_of: StateOf
) -> None:
    worker.stop()
    ending = new_worker()
    asked = submit(LONG, pretrain={"steps": LONG, "batch_size": 64, "processes": 2})
    eventually(lambda: together(ending)[0])
    ending.stop()
    assert (state_of(asked)["state"], state_of(asked)["error"]) == ("queued", None)
