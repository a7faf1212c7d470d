"""A worker does what is queued, and what the service says of it is so. What it survives is in `tests/faults`."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

TERMINAL = ("succeeded", "failed", "cancelled")
LONG = 1_000_000  # steps that nobody waits for
Submit = Callable[..., str]
StateOf = Callable[[str], dict[str, Any]]
Eventually = Callable[[Callable[[], Any]], Any]
Training = Callable[[str], None]
Events = Callable[[str], list[dict[str, Any]]]
Exists = Callable[[int], bool]


@pytest.mark.usefixtures("worker")
def test_an_experiment_succeeds_with_its_results_its_files_and_its_history(
    api: TestClient, submit: Submit, finished: StateOf, events: Events
) -> None:
    experiment = finished(submit(20))
    assert experiment["state"] == "succeeded", experiment
    assert experiment["attempt"] == 1
    information = experiment["results"]["mi"]["infonce"]
    assert information["value"] <= information["log_k"]
    assert 0 <= experiment["results"]["tasks"]["classification"]["value"] <= 1
    base = f"/v1/experiments/{experiment['id']}"
    kinds = [event["type"] for event in events(experiment["id"])]
    assert kinds == ["queued", "running", *["stage"] * 5, "succeeded"]
    losses = api.get(f"{base}/metrics?name=loss").json()["data"]
    assert [point["step"] for point in losses] == sorted(point["step"] for point in losses) != []
    files = {file["name"]: file for file in api.get(f"{base}/artifacts").json()["data"]}
    assert set(files) == {"preview.png", "encoder.safetensors", "load_encoder.py", "predictions.npz", "embeddings.npz"}
    assert len(api.get(files["encoder.safetensors"]["url"]).content) == files["encoder.safetensors"]["size"]
    assert api.get(f"{base}/preview.png").content.startswith(b"\x89PNG")
    assert api.get(f"{base}/reproduce").json()["data"]["digest"]


@pytest.mark.usefixtures("worker")
def test_an_encoder_that_was_taken_away_comes_back_and_is_measured_as_it_was(
    api: TestClient, submit: Submit, finished: StateOf
) -> None:
    trained = finished(submit(20))
    weights = api.get(f"/v1/experiments/{trained['id']}/artifacts/encoder.safetensors").content
    checkpoint = api.post("/v1/checkpoints", files={"file": ("encoder.safetensors", weights)}).json()["id"]
    frozen = {"method": {"kind": "frozen"}, "encoder": {"kind": "small_conv", "width": 4, "weights": checkpoint}}
    again = finished(submit(20, **frozen))
    assert again["state"] == "succeeded", again["error"]
    assert again["results"]["tasks"] == trained["results"]["tasks"]
    frozen["encoder"]["width"] = 8
    misfit = finished(submit(20, **frozen))
    assert misfit["error"]["code"] == "user"
    assert (
        "encoder.layers.0.0.weight has the shape [4, 1, 3, 3] in the checkpoint, and [8, 1, 3, 3]" in misfit["error"]["message"]
    )


@pytest.mark.usefixtures("worker")
def test_the_same_seed_gives_the_same_numbers_whichever_runner_trains(submit: Submit, finished: StateOf) -> None:
    first, second, other = (finished(submit(20, seed=seed))["results"] for seed in (3, 3, 4))
    assert (first["mi"], first["tasks"]) == (second["mi"], second["tasks"])
    assert first["mi"] != other["mi"]


def test_a_runner_that_ended_cleanly_takes_the_next_experiment(worker: Any, submit: Submit, finished: StateOf) -> None:
    ids = [finished(submit(5))["id"] for _ in range(3)]
    lines = worker.log.read_text().splitlines()
    assert all("attempt=1" in line for line in lines if any(f"experiment={name}" in line for name in ids))
    runners = {line.split("runner=")[1].split()[0] for line in lines if "runner=" in line and any(name in line for name in ids)}
    assert len(runners) == 1


@pytest.mark.usefixtures("worker")
def test_a_preview_comes_as_a_picture_even_while_the_worker_trains(api: TestClient, submit: Submit, training: Training) -> None:
    busy = submit(LONG)
    training(busy)
    answer = api.post("/v1/previews", json={"dataset": {"name": "digits"}, "views": {"kind": "crop", "area": 0.3}})
    if answer.status_code == 202:
        answer = api.get(answer.headers["Location"], headers={"Prefer": "wait=60"})
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")
    api.post(f"/v1/experiments/{busy}/cancel", headers={"Prefer": "wait=60"})


def test_cancelled_is_said_only_after_the_process_is_gone(
    api: TestClient, worker: Any, submit: Submit, state_of: StateOf, training: Training, exists: Exists
) -> None:
    experiment_id = submit(LONG)
    training(experiment_id)
    (runner,) = [pid for pid in worker.runners() if _is_training(pid)]
    seen: list[tuple[str, bool]] = []

    def watch() -> None:
        while not seen or seen[-1][0] not in TERMINAL:
            state = state_of(experiment_id)["state"]
            seen.append((state, exists(runner)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = api.post(f"/v1/experiments/{experiment_id}/cancel")
    assert answer.json()["state"] == "cancelling"
    watcher.join(60)
    assert seen[-1] == ("cancelled", False)
    assert {state for state, _ in seen} <= {"running", "cancelling", "cancelled"}


def test_a_runner_killed_in_mid_training_costs_an_attempt_and_nothing_else(
    worker: Any,
    submit: Submit,
    finished: StateOf,
    training: Training,
    events: Events,
) -> None:
    experiment_id = submit(1000)
    training(experiment_id)
    (runner,) = [pid for pid in worker.runners() if _is_training(pid)]
    os.kill(runner, signal.SIGKILL)
    experiment = finished(experiment_id)
    assert (experiment["state"], experiment["attempt"], experiment["error"]) == ("succeeded", 2, None)
    assert experiment["results"]["mi"] == finished(submit(1000))["results"]["mi"]
    told = [(event["attempt"], event["type"]) for event in events(experiment_id) if event["type"] != "stage"]
    assert told == [(0, "queued"), (1, "running"), (1, "requeued"), (2, "running"), (2, "succeeded")]


@pytest.mark.usefixtures("worker")
def test_a_limit_in_seconds_ends_a_training(submit: Submit, finished: StateOf) -> None:
    experiment = finished(submit(LONG, limits={"seconds": 2}))
    assert (experiment["state"], experiment["error"]["code"]) == ("failed", "timeout")


def _is_training(pid: int) -> bool:
    """A runner at work prints into the log of its attempt."""
    try:
        return Path(f"/proc/{pid}/fd/2").readlink().name == "log.txt"
    except OSError:
        return False
