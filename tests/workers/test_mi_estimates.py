"""A worker estimates the information of two arrays, and what the service says of it is so."""

import io
import math
import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.persistence import files

Json = dict[str, Any]
Ask = Callable[..., Json]
Done = Callable[[Json], Json]
LONG = {"estimators": "infonce,nwj,tuba,interpolated,dv,js", "repeats": "10"}  # trainings that nobody waits for


def gaussians(pairs: int, rho: float, dimensions: int = 2) -> tuple[Any, Any]:
    """Pairs with I = -d/2 log(1 - rho^2)."""
    x, noise = np.random.default_rng(0).standard_normal((2, pairs, dimensions))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


@pytest.fixture
def ask(api: TestClient) -> Ask:
    def ask(x: Any, y: Any, **fields: str) -> Json:
        content = io.BytesIO()
        np.savez(content, x=x, y=y)
        answer = api.post("/v1/mi-estimates", data=fields, files={"file": ("mine.npz", content.getvalue())})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    return ask


@pytest.fixture
def done(api: TestClient, eventually: Any) -> Done:
    """Wait until an estimate is finished, and answer it."""

    def wait(estimate: Json) -> Json:
        path = estimate["links"]["self"]
        eventually(lambda: api.get(path).json()["finished_at"])
        return dict(api.get(path).json())

    return wait


@pytest.fixture
def at_work(api: TestClient, worker: Any, eventually: Any) -> Callable[[Json, int], int]:
    """Wait until an attempt is at it, and answer its process."""

    def wait(estimate: Json, attempt: int = 1) -> int:
        def began() -> bool:
            found = api.get(estimate["links"]["self"]).json()
            return bool(found["attempt"] == attempt and found["progress"]["stage"] == "estimate")

        eventually(began)
        lines = [line for line in worker.log.read_text().splitlines() if f"mi_estimate={estimate['id']}" in line]
        (started,) = [line for line in lines if "event=started" in line and f"attempt={attempt} " in f"{line} "]
        return int(started.split("runner=")[1].split()[0])

    return wait


@pytest.mark.usefixtures("worker")
def test_a_small_estimate_reads_what_is_known_of_its_arrays(ask: Ask, done: Done, eventually: Any) -> None:
    made = ask(*gaussians(600, 0.8), estimators="cca,infonce,ksg", repeats="2")
    found = done(made)
    assert (found["state"], found["attempt"]) == ("succeeded", 1), found["error"]
    results, truth = found["results"], -math.log(1 - 0.8**2)
    assert list(results["mi"]) == ["cca", "infonce", "ksg"]
    for name in ("cca", "ksg"):
        estimate = results["mi"][name]
        assert estimate["value"] == pytest.approx(truth, abs=4 * estimate["stderr"])
    infonce = results["mi"]["infonce"]
    assert 0.7 * truth < infonce["value"] < min(truth + 4 * infonce["stderr"], infonce["log_k"])
    assert (results["pairs"], results["dimensions"], results["dropped"]) == (600, [2, 2], {"x": [], "y": []})
    assert infonce["log_k"] == pytest.approx(math.log(results["k"]))
    assert "nats" in results["verdict"] and results["hardware"]["versions"] and results["timing"]["seconds"] > 0
    assert found["progress"]["stage"] == "estimate" and found["progress"]["step"] == found["progress"]["total"]
    eventually(lambda: not files.arrays(made["id"]).exists())


@pytest.mark.usefixtures("worker")
def test_what_only_reading_shows_is_the_file_s_fault_and_is_told(ask: Ask, done: Done) -> None:
    x, y = gaussians(600, 0.5)
    y[17, 1] = np.nan
    failed = done(ask(x, y))
    assert (failed["state"], failed["attempt"], failed["results"]) == ("failed", 1, None)
    assert failed["error"]["code"] == "user"
    assert all(word in failed["error"]["message"] for word in ("y", "nan", "row 17, column 1", "finite numbers"))


@pytest.mark.usefixtures("worker")
def test_it_is_made_beside_a_training(api: TestClient, ask: Ask, done: Done, submit: Any, training: Any, state_of: Any) -> None:
    busy = submit(1_000_000)
    training(busy)
    assert done(ask(*gaussians(300, 0.5, 1), estimators="cca"))["state"] == "succeeded"
    assert state_of(busy)["state"] == "running"
    api.post(f"/v1/experiments/{busy}/cancel", headers={"Prefer": "wait=60"})


def test_cancelled_is_said_only_after_the_process_is_gone(
    api: TestClient, ask: Ask, done: Done, at_work: Any, exists: Callable[[int], bool]
) -> None:
    made = ask(*gaussians(4000, 0.5), **LONG)
    runner = at_work(made)
    assert api.post(made["links"]["cancel"]).json()["state"] == "cancelling"
    cancelled = done(made)
    assert not exists(runner)
    assert (cancelled["state"], cancelled["results"], cancelled["error"]) == ("cancelled", None, None)


def test_a_process_killed_in_the_middle_costs_an_attempt_and_nothing_else(ask: Ask, done: Done, at_work: Any) -> None:
    made = ask(*gaussians(600, 0.8), estimators="infonce", repeats="3")
    os.kill(at_work(made), signal.SIGKILL)
    found = done(made)
    assert (found["state"], found["attempt"], found["error"]) == ("succeeded", 2, None)


def test_one_that_kills_its_process_three_times_is_not_tried_again(ask: Ask, done: Done, at_work: Any) -> None:
    made = ask(*gaussians(4000, 0.5), **LONG)
    for attempt in (1, 2, 3):
        os.kill(at_work(made, attempt), signal.SIGKILL)
    error = {"code": "lost", "message": "the estimating process ended early: ended by SIGKILL"}
    failed = done(made)
    assert (failed["state"], failed["attempt"], failed["error"]) == ("failed", 3, error)
