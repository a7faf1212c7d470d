"""A worker that is shut down loses nothing."""

from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient


def test_sigterm_gives_the_experiment_back_and_it_goes_on_where_it_was(
    new_worker: Any,
    api: TestClient,
    submit: Callable[..., str],
    finished: Callable[[str], dict[str, Any]],
    state_of: Callable[[str], dict[str, Any]],
    training: Callable[[str], None],
    events: Callable[[str], list[dict[str, Any]]],
    exists: Callable[[int], bool],
) -> None:
    first = new_worker("first")
    undisturbed = finished(submit(600))
    experiment_id = submit(600)
    training(experiment_id)
    family = first.family()
    assert first.stop() == 0
    assert not any(exists(pid) for pid in family)
    assert state_of(experiment_id)["state"] == "queued"
    new_worker("second")
    experiment = finished(experiment_id)
    assert (experiment["state"], experiment["attempt"]) == ("succeeded", 2)
    assert (experiment["results"]["mi"], experiment["results"]["tasks"]) == (
        undisturbed["results"]["mi"],
        undisturbed["results"]["tasks"],
    )
    assert "going on from step" in api.get(f"/v1/experiments/{experiment_id}/logs").text
    told = [event["type"] for event in events(experiment_id) if event["type"] != "stage"]
    assert told == ["queued", "running", "requeued", "running", "succeeded"]
