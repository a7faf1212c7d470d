"""Sweeps that search, with the trainings' outcomes given."""

import io
import json
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.embedded import Servers
from app.persistence import files, leases, sweeps, workers
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


advance = searching.advance


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
    sweep_id = submitted(api, changed(trainings=24))
    done = run()
    found = api.get(f"/v1/sweeps/{sweep_id}").json()
    assert len(done) == 24
    assert (found["state"], found["search"]["reason"], found["search"]["spent"]) == ("succeeded", "trainings", 24)
    peak = found["search"]["peak"]
    assert peak["value_ci"][0] <= 0.4 <= peak["value_ci"][1]
    assert 0.25 < peak["value"] < 0.65
    assert peak["level"] == 0.9
    assert found["experiments"][0]["value"] == found["search"]["places"][found["experiments"][0]["index"]]["value"]
    assert found["progress"] == {"step": 24, "total": 24, "eta_s": 0}
    curve = api.get(f"/v1/sweeps/{sweep_id}/curve").json()
    assert curve["axis"]["values"] == sorted({spec["views"]["sigma"] for spec in done})
    assert sum(len(point["experiments"]) for point in curve["points"]) == 24
    (verdict,) = curve["verdicts"].values()
    assert verdict["shape"] == "inverted_u"
    assert {(spec["pretrain"]["precision"], spec["seed"] < 24) for spec in done} == {("float32", True)}
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
    tried = [spec["views"]["sigma"] for spec in done]
    assert all(tried.count(sigma) >= 2 for sigma in tried[:7]), "the first values twice, for the verdict"
    low, high = found["search"]["peak"]["value_ci"]
    assert math.log(high / low) <= 0.25 * math.log(3.2 / 0.05) + 1e-3


def test_short_trainings_come_first_and_stand_in_no_curve(api: TestClient) -> None:
    sweep_id = submitted(api, changed(short=0.25))
    done = run()
    steps = [spec["pretrain"]["steps"] for spec in done]
    assert steps[:5] == [10] * 5
    assert set(steps[5:]) == {40}
    found = api.get(f"/v1/sweeps/{sweep_id}").json()
    assert found["search"]["spent"] == 5 / 4 + steps.count(40) <= 16
    assert [place["short"] for place in found["search"]["places"]][:6] == [True] * 5 + [False]
    curve = api.get(f"/v1/sweeps/{sweep_id}/curve").json()
    assert sum(len(point["experiments"]) for point in curve["points"]) == steps.count(40)


def test_as_many_are_queued_as_workers_are_free(api: TestClient) -> None:
    for name in ("w1", "w2", "w3"):
        with open_session() as session:
            workers.hello(session, name, {})
            session.commit()
    submitted(api)
    assert advance() == 5, "the design at once, since it hangs on no outcome"
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
        "axis": {"path": "views.stride", "search": {"low": 2, "high": 9, "trainings": 10}},
    }
    resolved = api.post("/v1/sweeps?dry_run=true", json=patches).json()["spec"]
    assert resolved["axis"]["search"]["step"] == 1


@pytest.mark.parametrize(
    ("sweep", "pointer", "words"),
    [
        (changed(low=4), "/axis/search", "low must be below high"),
        (changed(low=0), "/axis/search", "above 0"),
        (changed(trainings=9), "/axis/search/trainings", "greater than or equal to 10"),
        (changed(short=0.9, trainings=12), "/axis/search", "10 whole ones must be left"),
        (changed(low=0, high=1e308, scale="linear", step=1e-5), "/axis/search", "at most 1e+09 steps"),
        (changed(low=1, high=2, step=0.5), "/axis/search", "at least 5 values between low and high; step leaves 3"),
        (
            SWEEP | {"axis": {"path": "pretrain.batch_size", "search": {"low": 60, "high": 90, "step": 0.5}}},
            "/axis/search",
            "pretrain.batch_size cannot be 60.5: ",
        ),
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


def test_whole_numbers_that_do_not_all_do_are_told_before_anything_is_trained(api: TestClient) -> None:
    parts = {"pretrain": {"steps": 40, "batch_size": 64, "processes": 2}}
    sweep = SWEEP | {"base": SWEEP["base"] | parts}  # type: ignore[operator]
    axis = {"path": "pretrain.batch_size", "search": {"low": 60, "high": 90}}
    answer = api.post("/v1/sweeps", json=sweep | {"axis": axis})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/axis/search" and "`step` leaves values out" in error["message"]
    even = axis | {"search": {"low": 60, "high": 90, "step": 2}}
    assert api.post("/v1/sweeps?dry_run=true", json=sweep | {"axis": even}).status_code == 200


def test_a_search_that_cannot_go_on_ends_and_holds_up_nobody(api: TestClient) -> None:
    """A spec that no longer fits, as one of an older version might not."""
    broken, sound = submitted(api), submitted(api, changed(low=0.06))
    with open_session() as session:
        row = sweeps.get(session, broken)
        row.spec = {**row.spec, "axis": {**row.spec["axis"], "path": "views.sgima"}}
        session.commit()
    assert advance() == 5
    found = api.get(f"/v1/sweeps/{sound}").json()
    assert (found["state"], found["counts"]["queued"]) == ("running", 5) or found["state"] == "queued"
    with open_session() as session:
        ended = sweeps.get(session, broken).search
    assert ended is not None and ended["ended"] == "failed"
    assert "is no node of the spec" in ended["error"]


def test_the_answer_to_a_wait_knows_the_places_of_its_experiments(api: TestClient) -> None:
    """The row is read before the wait and the experiments after it."""
    sweep_id = submitted(api)
    begun = threading.Thread(target=lambda: (time.sleep(0.3), advance()))
    begun.start()
    answer = api.get(f"/v1/sweeps/{sweep_id}", headers={"Prefer": "wait=2"})
    begun.join()
    assert answer.status_code == 200
    assert len(answer.json()["experiments"]) == len(answer.json()["search"]["places"]) == 5


def test_what_waits_for_an_upload_keeps_no_worker_from_a_search(api: TestClient) -> None:
    dataset = uploaded(api)
    for name in ("w1", "w2"):
        with open_session() as session:
            workers.hello(session, name, {})
            session.commit()
    waiting = {"dataset": {"name": dataset}, "views": {"kind": "noise"}}
    assert [api.post("/v1/experiments", json=waiting).status_code for _ in range(4)] == [202] * 4
    submitted(api)
    advance()
    while (claimed := claim()) is not None:
        finish(claimed)
    assert advance() == 2


def uploaded(api: TestClient) -> str:
    """An upload that waits to be decoded: grey images of two classes."""
    file = io.BytesIO()
    draw = np.random.default_rng(0)
    np.savez(file, x=draw.integers(0, 256, (400, 16, 16), dtype=np.uint8), y=draw.integers(0, 2, 400))
    answer = api.post("/v1/datasets", files={"file": ("mine.npz", file.getvalue())})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def on(dataset: str) -> Json:
    """A base that leaves its tasks to the dataset."""
    return {field: part for field, part in SWEEP["base"].items() if field != "tasks"} | {"dataset": {"name": dataset}}  # type: ignore[attr-defined]


def decode(dataset: str) -> None:
    facts = {"name": dataset, "layout": "images", "train": 240, "test": 160, "channels": 1, "image_size": 16, "classes": 2}
    with open_session() as session:
        claimed = leases.claim_dataset(session, "worker-1", 60)
        assert claimed is not None
        leases.succeed_dataset(session, claimed, facts)
        session.commit()
    folder = files.dataset_folder(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / files.FACTS).write_text(json.dumps(facts))


def test_a_search_on_an_upload_begins_once_that_is_decoded_and_holds_it(api: TestClient) -> None:
    dataset = uploaded(api)
    base = {
        "dataset": {"name": dataset},
        "views": {"kind": "noise"},
        "pretrain": {"steps": 40, "batch_size": 64},
        "mi": {"k": 64},
    }
    sweep_id = submitted(api, SWEEP | {"base": base})
    assert advance() == 0
    decode(dataset)
    refused = api.delete(f"/v1/datasets/{dataset}")
    assert refused.status_code == 409 and f"{sweep_id} still searches on it" in refused.json()["detail"]
    run()
    found = api.get(f"/v1/sweeps/{sweep_id}").json()
    assert (found["state"], found["search"]["reason"], found["search"]["peak"]["task"]) == (
        "succeeded",
        "trainings",
        "classification",
    )
    assert found["spec"]["axis"]["search"]["task"] == "classification"
    assert api.delete(f"/v1/datasets/{dataset}").status_code == 204


def test_a_task_that_an_upload_has_not_ends_the_search_with_its_name(api: TestClient) -> None:
    dataset = uploaded(api)
    base = {
        "dataset": {"name": dataset},
        "views": {"kind": "noise"},
        "pretrain": {"steps": 40, "batch_size": 64},
        "mi": {"k": 64},
    }
    sweep_id = submitted(api, changed(task="knn") | {"base": base})
    decode(dataset)
    assert advance() == 0
    found = api.get(f"/v1/sweeps/{sweep_id}").json()
    assert (found["search"]["reason"], found["search"]["error"]) == ("failed", "classification, not 'knn'")


def test_a_dry_run_tells_what_it_may_cost(api: TestClient, database: Servers) -> None:
    answer = api.post("/v1/sweeps?dry_run=true", json=SWEEP).json()
    assert answer["cost"]["trainings"] == 16
    assert answer["spec"]["axis"]["search"]["task"] == "classification"
