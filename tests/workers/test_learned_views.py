"""A job that is stopped while its views are learned goes on in that stage, and ends with the numbers of one never disturbed."""

import io
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.persistence import files

VIEWS_STEPS = 300
OFTEN = {"SWEETSPOT_CHECKPOINT_SECONDS": "0.3"}


@pytest.fixture
def learned(api: TestClient, submit: Callable[..., str], eventually: Callable[..., None]) -> Callable[[], str]:
    """Submit a small experiment whose views are learned for a while, and answer its id."""
    chances = np.random.default_rng(0)
    file = io.BytesIO()
    np.savez(file, x=chances.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8), y=np.arange(200) % 2)
    made = api.post("/v1/datasets", files={"file": ("made.npz", file.getvalue())}).json()
    views = {"kind": "learned", "mode": "semi_supervised", "base_space": "rgb", "steps": VIEWS_STEPS, "batch_size": 16}

    def submitted(processes: int = 1) -> str:
        eventually(lambda: api.get(made["links"]["self"]).json()["state"] == "ready")
        pretrain = {"steps": 20, "batch_size": 32, "processes": processes}
        return submit(20, dataset={"name": made["id"]}, views=views, pretrain=pretrain)

    return submitted


@pytest.fixture
def undisturbed(
    api: TestClient, learned: Callable[..., str], finished: Callable[[str], dict[str, Any]]
) -> Callable[[], tuple[dict[str, Any], bytes]]:
    """What came of one to which nothing happened, and its map; run once for all tests, by the worker of the first."""

    def found() -> tuple[dict[str, Any], bytes]:
        if not _undisturbed:
            experiment = finished(learned())
            _undisturbed.append((experiment["results"], _map_of(api, experiment)))
        return _undisturbed[0]

    return found


_undisturbed: list[tuple[dict[str, Any], bytes]] = []


def test_sigterm_in_the_stage_gives_it_back_there(
    new_worker: Any, api: TestClient, learned: Callable[..., str], undisturbed: Any, finished: Any, state_of: Any, eventually: Any
) -> None:
    first = new_worker("first")
    whole = undisturbed()
    experiment_id = learned()
    eventually(lambda: _is_learning(state_of(experiment_id)))
    assert first.stop() == 0
    new_worker("second")
    _ended_alike(api, finished(experiment_id), whole)


def test_a_killed_runner_goes_on_from_its_last_checkpoint(
    new_worker: Any, api: TestClient, learned: Callable[..., str], undisturbed: Any, finished: Any, state_of: Any, eventually: Any
) -> None:
    worker = new_worker("often", **OFTEN)
    whole = undisturbed()
    experiment_id = learned()
    eventually(lambda: _is_learning(state_of(experiment_id)))
    (runner,) = [pid for pid in worker.runners() if Path(f"/proc/{pid}/fd/2").readlink().name == "log.txt"]  # not the idle one
    os.kill(runner, signal.SIGKILL)
    experiment = finished(experiment_id)
    assert experiment["attempt"] == 2
    _ended_alike(api, experiment, whole)


def test_a_cancelled_one_is_retried_from_where_it_was(
    new_worker: Any, api: TestClient, learned: Callable[..., str], undisturbed: Any, finished: Any, state_of: Any, eventually: Any
) -> None:
    new_worker("only")
    whole = undisturbed()
    experiment_id = learned()
    eventually(lambda: _is_learning(state_of(experiment_id)))
    api.post(f"/v1/experiments/{experiment_id}/cancel")
    assert finished(experiment_id)["state"] == "cancelled"
    assert list(files.checkpoints_folder(experiment_id).glob("*.safetensors"))
    again = api.post(f"/v1/experiments/{experiment_id}/retry").json()
    assert again["retry_of"] == experiment_id
    _ended_alike(api, finished(again["id"]), whole)
    assert not any(files.checkpoints_folder(one).exists() for one in (experiment_id, again["id"]))


def test_processes_that_train_together_learn_the_map_that_one_learns(
    new_worker: Any, api: TestClient, learned: Callable[..., str], undisturbed: Any, finished: Any, state_of: Any, eventually: Any
) -> None:
    new_worker("only")
    _, g = undisturbed()
    experiment_id = learned(processes=2)
    eventually(lambda: _is_learning(state_of(experiment_id)))
    experiment = finished(experiment_id)
    assert experiment["state"] == "succeeded", experiment["error"]
    assert _map_of(api, experiment) == g


def _is_learning(experiment: dict[str, Any]) -> bool:
    return bool(experiment["progress"]["stage"] == "views" and experiment["progress"]["step"] > VIEWS_STEPS / 3)


def _ended_alike(api: TestClient, experiment: dict[str, Any], whole: tuple[dict[str, Any], bytes]) -> None:
    found = re.search(r"going on from step (\d+)", api.get(f"/v1/experiments/{experiment['id']}/logs").text)
    assert found is not None and 0 < int(found[1]) < VIEWS_STEPS
    assert experiment["state"] == "succeeded"
    results, g = whole
    for part in ("mi", "tasks", "views", "information"):
        assert experiment["results"][part] == results[part]
    assert _map_of(api, experiment) == g


def _map_of(api: TestClient, experiment: dict[str, Any]) -> bytes:
    answer = api.get(f"/v1/experiments/{experiment['id']}/artifacts/view_generator.safetensors")
    assert answer.status_code == 200
    return answer.content
