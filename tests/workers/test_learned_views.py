"""A job that is stopped while its views are learned goes on in that stage, and ends with the numbers of one never disturbed."""

import io
import os
import re
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

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

    def submitted() -> str:
        eventually(lambda: api.get(made["links"]["self"]).json()["state"] == "ready")
        return submit(20, dataset={"name": made["id"]}, views=views)

    return submitted


def test_sigterm_in_the_stage_gives_it_back_there(
    new_worker: Any, api: TestClient, learned: Callable[[], str], finished: Any, state_of: Any, eventually: Any
) -> None:
    first = new_worker("first")
    undisturbed = finished(learned())
    experiment_id = learned()
    eventually(lambda: _is_learning(state_of(experiment_id)))
    assert first.stop() == 0
    new_worker("second")
    _ended_alike(api, finished(experiment_id), undisturbed)


def test_a_killed_runner_goes_on_from_its_last_checkpoint(
    new_worker: Any, api: TestClient, learned: Callable[[], str], finished: Any, state_of: Any, eventually: Any
) -> None:
    worker = new_worker("often", **OFTEN)
    undisturbed = finished(learned())
    experiment_id = learned()
    eventually(lambda: _is_learning(state_of(experiment_id)))
    for runner in worker.runners():
        os.kill(runner, signal.SIGKILL)
    experiment = finished(experiment_id)
    assert experiment["attempt"] == 2
    _ended_alike(api, experiment, undisturbed)


def test_a_cancelled_one_is_retried_from_where_it_was(
    new_worker: Any, api: TestClient, learned: Callable[[], str], finished: Any, state_of: Any, eventually: Any
) -> None:
    new_worker("only")
    undisturbed = finished(learned())
    experiment_id = learned()
    eventually(lambda: _is_learning(state_of(experiment_id)))
    api.post(f"/v1/experiments/{experiment_id}/cancel")
    assert finished(experiment_id)["state"] == "cancelled"
    again = api.post(f"/v1/experiments/{experiment_id}/retry").json()
    assert again["retry_of"] == experiment_id
    _ended_alike(api, finished(again["id"]), undisturbed)


def _is_learning(experiment: dict[str, Any]) -> bool:
    return bool(experiment["progress"]["stage"] == "views" and experiment["progress"]["step"] > VIEWS_STEPS / 3)


def _ended_alike(api: TestClient, experiment: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    found = re.search(r"going on from step (\d+)", api.get(f"/v1/experiments/{experiment['id']}/logs").text)
    assert found is not None and 0 < int(found[1]) < VIEWS_STEPS
    assert experiment["state"] == "succeeded"
    for part in ("mi", "tasks", "views", "information"):
        assert experiment["results"][part] == undisturbed["results"][part]
    for result in (experiment, undisturbed):
        kept = api.get(f"/v1/experiments/{result['id']}/artifacts/view_generator.safetensors")
        assert kept.status_code == 200
        result["g"] = kept.content
    assert experiment["g"] == undisturbed["g"]
