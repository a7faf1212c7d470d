"""Sweeps that search, with the trainings' outcomes given."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.embedded import Servers
from app.persistence import leases, workers
from app.persistence.database import open_session
from app.persistence.leases import Claim
from tests.app.conftest import results
from workers import searching

Json = dict[str, Any]
SWEEP = {
    "name": "noise, searched",
    "base": {
        "dataset": {"name": "digits"},
        "views": {"kind": "noise"},
        "pretrain": {"steps": 40, "batch_size": 64},
        "mi": {"k": 64},
        "tasks": [{"kind": "classification"}],
    },
    "axis": {"path": "views.sigma", "search": {"low": 0.05, "high": 3.2, "scale": "log", "trainings": 16}},
}


def u_shaped(spec: Json) -> tuple[float, float]:
    """(I_NCE, accuracy): a U over log sigma with its peak at .4, and a scatter of half a point by seed."""
    sigma, seed = spec["views"]["sigma"], spec["seed"]
    return 3.5 / (1 + sigma), 0.9 - 0.1 * math.log(sigma / 0.4) ** 2 / 4 + 0.005 * math.sin(7 * seed + 100 * sigma)


def advance() -> int:
    with open_session() as session:
        queued = searching.advance(session)
        session.commit()
    return queued


def claim() -> Claim | None:
    with open_session() as session:
        found = leases.claim_experiment(session, "worker-1", "default", 60)
        session.commit()
    return found


def finish(claimed: Claim, measure: Callable[[Json], tuple[float, float]] = u_shaped) -> None:
    with open_session() as session:
        leases.succeed(session, claimed, results(claimed.spec, *measure(claimed.spec)), [])
        session.commit()


def run(measure: Callable[[Json], tuple[float, float]] = u_shaped) -> list[Json]:
    """One worker does all there is to do; the specs, in their order."""
    done = []
    while advance() or True:
        claimed = claim()
        if claimed is None:
            return done
        finish(claimed, measure)
        done.append(claimed.spec)
    return done


def changed(**search: Any) -> Json:
    return SWEEP | {"axis": SWEEP["axis"] | {"search": SWEEP["axis"]["search"] | search}}  # type: ignore[operator,index]


def submitted(api: TestClient, sweep: Json = SWEEP) -> str:
    answer = api.post("/v1/sweeps", json=sweep)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["state"], answer.json()["counts"]["total"]) == ("queued", 0)
    return str(answer.json()["id"])


def test_a_search_ends_with_its_trainings_and_finds_the_peak(api: TestClient) -> None:
    sweep_id = submitted(api)
    done = run()
    found = api.get(f"/v1/sweeps/{sweep_id}").json()
    assert len(done) == 16
    assert (found["state"], found["search"]["reason"], found["search"]["spent"]) == ("succeeded", "trainings", 16)
    peak = found["search"]["peak"]
    assert peak["value_ci"][0] <= 0.4 <= peak["value_ci"][1]
    assert 0.25 < peak["value"] < 0.65
    assert peak["level"] == 0.9
    assert found["experiments"][0]["value"] == found["search"]["places"][found["experiments"][0]["index"]]["value"]
    assert found["progress"] == {"step": 16, "total": 16, "eta_s": 0}
    curve = api.get(f"/v1/sweeps/{sweep_id}/curve").json()
    assert curve["axis"]["values"] == sorted({spec["views"]["sigma"] for spec in done})
    assert sum(len(point["experiments"]) for point in curve["points"]) == 16
    (verdict,) = curve["verdicts"].values()
    assert verdict["shape"] == "inverted_u"
    assert {(spec["pretrain"]["precision"], spec["seed"] < 16) for spec in done} == {("float32", True)}
    for form in ("csv", "svg", "vl.json"):
        assert api.get(f"/v1/sweeps/{sweep_id}/curve.{form}").status_code == 200


def test_repeats_of_a_value_differ_in_their_seed(api: TestClient) -> None:
    submitted(api)
    done = [(spec["views"]["sigma"], spec["seed"]) for spec in run()]
    assert len(set(done)) == len(done)
    assert len({sigma for sigma, _ in done}) < len(done)


def test_it_ends_before_once_the_peak_is_known_well_enough(api: TestClient) -> None:
    sweep_id = submitted(api, changed(tolerance=0.25, trainings=60))
    done = run()
    found = api.get(f"/v1/sweeps/{sweep_id}").json()
    assert (found["state"], found["search"]["reason"]) == ("succeeded", "tolerance")
    assert len(done) < 40
    low, high = found["search"]["peak"]["value_ci"]
    assert math.log(high / low) <= 0.25 * math.log(3.2 / 0.05) + 1e-3


def test_short_trainings_come_first_and_stand_in_no_curve(api: TestClient) -> None:
    sweep_id = submitted(api, changed(short=0.25))
    done = run()
    steps = [spec["pretrain"]["steps"] for spec in done]
    assert steps[:7] == [10] * 7
    assert set(steps[7:]) == {40}
    found = api.get(f"/v1/sweeps/{sweep_id}").json()
    assert found["search"]["spent"] == 7 / 4 + steps.count(40) <= 16
    assert [place["short"] for place in found["search"]["places"]][:8] == [True] * 7 + [False]
    curve = api.get(f"/v1/sweeps/{sweep_id}/curve").json()
    assert sum(len(point["experiments"]) for point in curve["points"]) == steps.count(40)


def test_as_many_are_queued_as_workers_are_free(api: TestClient) -> None:
    for name in ("w1", "w2", "w3"):
        with open_session() as session:
            workers.hello(session, name, {})
            session.commit()
    submitted(api)
    assert advance() == 7, "the design at once, since it hangs on no outcome"
    while (claimed := claim()) is not None:
        finish(claimed)
    assert advance() == 3
    claims = [claim() for _ in range(3)]
    assert len({(taken.spec["views"]["sigma"], taken.spec["seed"]) for taken in claims if taken}) == 3
    assert advance() == 0, "nobody is free"
    assert claims[0] is not None
    finish(claims[0])
    assert advance() == 1


def test_the_same_search_again_is_not_trained_again(api: TestClient) -> None:
    submitted(api)
    run()
    again = submitted(api)
    assert run() == []
    found = api.get(f"/v1/sweeps/{again}").json()
    assert found["state"] == "succeeded"
    assert all(member["reused"] for member in found["experiments"])


def test_one_that_is_cancelled_begins_nothing_more_and_a_retry_goes_on(api: TestClient) -> None:
    sweep_id = submitted(api)
    advance()
    assert api.delete(f"/v1/sweeps/{sweep_id}").status_code == 409
    cancelled = api.post(f"/v1/sweeps/{sweep_id}/cancel").json()
    assert (cancelled["state"], cancelled["search"]["reason"]) == ("cancelled", "cancelled")
    assert advance() == 0
    assert api.post(f"/v1/sweeps/{sweep_id}/cancel").status_code == 409
    assert api.post(f"/v1/sweeps/{sweep_id}/retry").json()["state"] == "queued"
    run()
    found = api.get(f"/v1/sweeps/{sweep_id}").json()
    assert (found["state"], len(found["experiments"])) == ("succeeded", 16)
    assert api.delete(f"/v1/sweeps/{sweep_id}").status_code == 204


def test_between_its_trainings_it_is_running_and_can_be_cancelled(api: TestClient) -> None:
    sweep_id = submitted(api)
    advance()
    while (claimed := claim()) is not None:
        finish(claimed)
    found = api.get(f"/v1/sweeps/{sweep_id}").json()
    assert (found["state"], found["counts"]["queued"], found["search"]["finished"]) == ("running", 0, False)
    assert found["progress"]["total"] == 16
    assert api.post(f"/v1/sweeps/{sweep_id}/cancel").json()["state"] == "cancelled"


def test_one_whose_trainings_all_fail_has_failed(api: TestClient) -> None:
    sweep_id = submitted(api)
    advance()
    while (claimed := claim()) is not None:
        with open_session() as session:
            leases.fail(session, claimed, {"code": "user", "message": "no"})
            session.commit()
    assert advance() == 0
    found = api.get(f"/v1/sweeps/{sweep_id}").json()
    assert (found["state"], found["search"]["reason"]) == ("failed", "failed")
    assert api.post(f"/v1/sweeps/{sweep_id}/retry").status_code == 202
    run()
    assert api.get(f"/v1/sweeps/{sweep_id}").json()["state"] == "succeeded"


def test_one_failure_is_no_end(api: TestClient) -> None:
    sweep_id = submitted(api)
    advance()
    first = claim()
    assert first is not None
    with open_session() as session:
        leases.fail(session, first, {"code": "user", "message": "no"})
        session.commit()
    run()
    found = api.get(f"/v1/sweeps/{sweep_id}").json()
    assert (found["state"], found["counts"]["failed"], found["counts"]["succeeded"]) == ("succeeded", 1, 15)


def test_whole_numbers_are_searched_where_the_node_takes_no_others(api: TestClient) -> None:
    patches = {
        "base": {"dataset": {"name": "digits", "image_size": 32}, "views": {"kind": "patch_grid", "size": 8}},
        "axis": {"path": "views.stride", "search": {"low": 2, "high": 9, "trainings": 8}},
    }
    resolved = api.post("/v1/sweeps?dry_run=true", json=patches).json()["spec"]
    assert resolved["axis"]["search"]["step"] == 1


@pytest.mark.parametrize(
    ("sweep", "pointer", "words"),
    [
        (changed(low=4), "/axis/search", "low must be below high"),
        (changed(low=0), "/axis/search", "above 0"),
        (changed(trainings=4), "/axis/search/trainings", "greater than or equal to 5"),
        (changed(low=-1, scale="linear"), "/axis/search/low", "views.sigma cannot be -1"),
        (changed(task="knn"), "/axis/search/task", "classification, not 'knn'"),
        (SWEEP | {"axis": {"path": "views.sigma", "values": [1, 2], "search": {"low": 1, "high": 2}}}, "/axis", "either values"),
        (SWEEP | {"axis": {"path": "views.sigma"}}, "/axis", "an axis needs values"),
        (SWEEP | {"axis": {"path": "views.sgima", "search": {"low": 1, "high": 2}}}, "/axis/path", "is no node"),
    ],
)
def test_what_cannot_be_searched_is_refused(api: TestClient, sweep: Json, pointer: str, words: str) -> None:
    answer = api.post("/v1/sweeps", json=sweep)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert words in answer.json()["errors"][0]["message"]


def test_a_dry_run_tells_what_it_may_cost(api: TestClient, database: Servers) -> None:
    answer = api.post("/v1/sweeps?dry_run=true", json=SWEEP).json()
    assert answer["cost"]["trainings"] == 16
    assert answer["spec"]["axis"]["search"]["task"] == "classification"
