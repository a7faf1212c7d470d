"""`/v1/sweeps`: a grid along one axis, its states, and the curve in every format."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from app.persistence import experiments, leases, sweeps
from app.persistence.database import open_session
from app.settings import settings
from ml.spec import DatasetFacts, ExperimentSpec

Json = dict[str, Any]
SIGMAS = [0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.6, 2.5]
ACCURACIES = [0.56, 0.73, 0.78, 0.83, 0.86, 0.84, 0.82, 0.75]
NATS = [6.23, 6.19, 5.98, 4.73, 2.64, 1.39, 0.36, 0.02]
FORMATS = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "pdf": "application/pdf",
    "vl.json": "application/vnd.vegalite.v6+json",
}
LOST = {"code": "lost", "message": "the training process ended early"}


def measure(spec: Json) -> tuple[float, float]:
    """The curve that noise on digits traced, with a little scatter over the seeds."""
    index, seed = SIGMAS.index(spec["views"]["sigma"]), spec["seed"]
    return NATS[index] + 0.01 * (seed - 1), ACCURACIES[index] + 0.011 * (seed - 1)


@pytest.fixture
def post(api: TestClient) -> Callable[[Json], Json]:
    def post(spec: Json) -> Json:
        answer = api.post("/v1/sweeps", json=spec)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    return post


@pytest.fixture
def digits(spec: Json) -> Json:
    return {"name": "noise on digits", "base": spec, "axis": {"path": "views.sigma", "values": SIGMAS}, "seeds": 3}


def get(api: TestClient, sweep: Json, suffix: str = "") -> Json:
    answer = api.get(f"/v1/sweeps/{sweep['id']}{suffix}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


# Submission


def test_a_grid_is_values_times_seeds(api: TestClient, digits: Json) -> None:
    answer = api.post("/v1/sweeps", json=digits | {"base": digits["base"] | {"seed": 5}})
    sweep = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/sweeps/{sweep['id']}" == sweep["links"]["self"]
    assert sweep["id"].startswith("swp_") and sweep["name"] == "noise on digits"
    assert (sweep["state"], sweep["counts"]["queued"], sweep["counts"]["total"]) == ("queued", 24, 24)
    places = [(member["index"], member["value"], member["seed"]) for member in sweep["experiments"]]
    assert places == [(index, sigma, seed) for index, sigma in enumerate(SIGMAS) for seed in (5, 6, 7)]
    member = api.get(f"/v1/experiments/{sweep['experiments'][4]['id']}").json()
    assert (member["spec"]["views"]["sigma"], member["spec"]["seed"]) == (0.1, 6)
    assert get(api, sweep) == sweep


def test_trainings_are_taken_in_the_order_of_the_axis(post: Callable[[Json], Json], sweep_spec: Json, work: Any) -> None:
    sweep = post(sweep_spec)
    assert [work.claimed().id for _ in range(6)] == [member["id"] for member in sweep["experiments"]]


def test_whole_recipes_may_be_the_axis(post: Callable[[Json], Json], sweep_spec: Json) -> None:
    recipes = [{"kind": "crop", "area": 0.2}, {"kind": "augment", "flip_p": 0}]
    sweep = post(sweep_spec | {"axis": {"path": "views", "values": recipes, "labels": ["crop", "no flip"]}})
    assert [member["value"] for member in sweep["experiments"]] == [recipes[0], recipes[0], recipes[1], recipes[1]]


def test_a_dry_run_answers_spec_and_cost_and_queues_nothing(api: TestClient, digits: Json) -> None:
    answer = api.post("/v1/sweeps?dry_run=true", json=digits)
    assert answer.status_code == 200
    assert answer.json()["cost"]["trainings"] == 24
    assert answer.json()["spec"]["axis"]["values"] == SIGMAS
    assert api.get("/v1/experiments").json()["data"] == api.get("/v1/sweeps").json()["data"] == []


def test_the_cost_of_each_training_comes_from_those_of_its_kind_of_views(
    api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any
) -> None:
    post(sweep_spec)
    work.finish_all(lambda _: (1.0, 0.8))

    def basis(*recipes: Json) -> str:
        asked = sweep_spec | {"axis": {"path": "views", "values": list(recipes)}}
        return str(api.post("/v1/sweeps?dry_run=true", json=asked).json()["cost"]["basis"])

    assert basis({"kind": "noise", "sigma": 0.3}) == "the rate of finished experiments like this one"
    assert basis({"kind": "crop"}).startswith("reference rates")
    assert "where there are any, else reference" in basis({"kind": "noise"}, {"kind": "crop"})


@pytest.mark.parametrize(
    ("learned", "passes"),
    [
        ({"mode": "unsupervised"}, 4),
        ({"mode": "unsupervised", "critic_steps": 4}, 7),
        ({"mode": "semi_supervised", "labelled_batch_size": 32}, 5.5),
        ({"mode": "supervised", "labelled_batch_size": 32}, 1.5),
    ],
)
def test_learning_views_costs_by_what_it_passes_through_encoders(
    api: TestClient, own: Callable[..., str], learned: Json, passes: float
) -> None:
    base = {"dataset": {"name": own(200, 3)}, "pretrain": {"steps": 10_000, "batch_size": 64}}

    def training(views: Json) -> float:
        answer = api.post("/v1/experiments?dry_run=true", json=base | {"views": views})
        return float(answer.json()["cost"]["seconds"]) - 2  # for the rest

    of_pairs = training({"kind": "color_split"}) / (1 + 1 / 8)  # the reference takes an eighth
    of_views = training({"kind": "learned", "batch_size": 64} | learned) - training({"kind": "color_split"})
    assert of_views / of_pairs == pytest.approx(passes, rel=0.02)


@pytest.mark.parametrize(("size", "words"), [(8, "finished experiments"), (6, "reference")])
def test_the_cost_of_patches_goes_by_their_size(
    api: TestClient, post: Callable[[Json], Json], spec: Json, work: Any, size: int, words: str
) -> None:
    def of(size: int) -> Json:
        patches = {"kind": "patch_grid", "size": size, "stride": 4}
        return {"base": spec | {"views": patches}, "axis": {"path": "views.stride", "values": [4]}, "seeds": 1}

    post(of(8))
    work.finish_all(lambda _: (1.0, 0.8))
    assert words in api.post("/v1/sweeps?dry_run=true", json=of(size)).json()["cost"]["basis"]


def test_the_largest_sweep(api: TestClient, sweep_spec: Json) -> None:
    values = [round(0.005 * index, 3) for index in range(200)]
    assert (
        api.post("/v1/sweeps", json=sweep_spec | {"axis": {"path": "views.sigma", "values": values}, "seeds": 6}).status_code
        == 422
    )
    answer = api.post("/v1/sweeps", json=sweep_spec | {"axis": {"path": "views.sigma", "values": values}, "seeds": 5})
    assert answer.status_code == 202
    assert len({member["id"] for member in answer.json()["experiments"]}) == answer.json()["counts"]["total"] == 1000
    assert api.post(f"/v1/sweeps/{answer.json()['id']}/cancel").json()["counts"]["cancelled"] == 1000


AXIS = {"path": "views.sigma", "values": [0.5]}
REFUSED: list[tuple[Json, str, str]] = [
    ({"axis": AXIS | {"path": "views.sgima"}}, "/axis/path", "'views.sigma'"),
    ({"axis": AXIS | {"path": "tasks.7.labels"}}, "/axis/path", "no node"),
    ({"axis": AXIS | {"path": "views.sigma.more"}}, "/axis/path", "no node"),
    ({"axis": AXIS | {"path": "seed"}}, "/axis/path", "`seeds`"),
    ({"axis": AXIS | {"path": "Views.sigma"}}, "/axis/path", "pattern"),
    ({"axis": AXIS | {"path": ""}}, "/axis/path", "at least 1"),
    ({"axis": AXIS | {"values": []}}, "/axis", "an axis needs values"),
    ({"axis": AXIS | {"values": 0.5}}, "/axis/values", "valid tuple"),
    ({"axis": AXIS | {"values": [0.5, -1]}}, "/axis/values/1", "greater than or equal to 0"),
    ({"axis": AXIS | {"values": [0.5, "much"]}}, "/axis/values/1", "number"),
    ({"axis": AXIS | {"values": [0.5, "0.5"]}}, "/axis/values/1", "numbers, not '0.5'"),
    ({"axis": AXIS | {"values": [True, 0.5]}}, "/axis/values/0", "numbers, not True"),
    ({"axis": {"path": "dataset.name.0", "values": ["x"]}}, "/axis/path", "no node"),
    ({"axis": {"path": "name", "values": ["x", "y"]}}, "/axis/path", "decides no numbers"),
    ({"axis": AXIS | {"values": [0.5, 1, 0.5]}}, "/axis", "0.5 stands there twice"),
    ({"axis": AXIS | {"values": [1, 1.0]}}, "/axis", "1.0 stands there twice"),
    ({"axis": AXIS | {"values": [0.5, None]}}, "/axis/values/1", "number"),
    ({"axis": AXIS | {"values": [float("nan")]}}, "/axis/values/0", "finite"),
    ({"axis": AXIS | {"values": [10**400]}}, "/axis/values/0", "number"),
    ({"axis": AXIS | {"values": [{"\0": 1}]}}, "/axis/values/0", "without the character"),
    ({"axis": AXIS | {"labels": ["one", "two"]}}, "/axis", "each of the 1 values, not 2"),
    ({"axis": AXIS | {"labels": ["\ud800"]}}, "/axis/labels/0", "without the character"),
    ({"axis": {"path": "views", "values": [{"kind": "crop", "area": 7}]}}, "/axis/values/0", "less than or equal to 1"),
    ({"axis": {"path": "mi.k", "values": [64, 541]}}, "/axis/values/1", "2 to 540"),
    ({"axis": {"path": "mi", "values": [{"k": 541}]}}, "/axis/values/0/k", "2 to 540"),
    ({"axis": {"path": "dataset.name", "values": ["digits", "nowhere"]}}, "/axis/values/1", "nowhere.npz"),
    ({"axis": {"path": "pretrain.steps", "values": [64]}, "base": {"pretrain": {"epochs": 1}}}, "/axis/values/0", "not both"),
    ({"base": {"mi": {"k": 541}}}, "/base/mi/k", "2 to 540"),
    ({"base": {"views": {"kind": "noise", "sgima": 1}}}, "/base/views/sgima", "unknown field"),
    ({"base": {"dataset": {"name": "nowhere"}}}, "/base/dataset/name", "nowhere.npz"),
    ({"base": {"seed": 2**31 - 2}, "seeds": 3}, "/base/seed", "2147483647"),
    ({"seeds": 0}, "/seeds", "greater than or equal to 1"),
    ({"axis": AXIS | {"values": [*range(200)]}, "seeds": 6}, "", "at most 1000"),
    ({"colour": 1}, "/colour", "unknown field"),
]


@pytest.mark.parametrize(("fields", "pointer", "words"), REFUSED, ids=[f"{pointer} {words}" for _, pointer, words in REFUSED])
def test_a_bad_sweep_names_the_field(api: TestClient, sweep_spec: Json, fields: Json, pointer: str, words: str) -> None:
    body = sweep_spec | fields | {"base": sweep_spec["base"] | fields.get("base", {})}
    answer = api.post("/v1/sweeps", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    found = {error["pointer"]: error["message"] for error in answer.json()["errors"]}
    assert words in found[pointer]


# States


def test_the_state_of_a_sweep_follows_its_experiments(
    api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any
) -> None:
    sweep = post(sweep_spec | {"seeds": 1})
    claim = work.claimed()
    running = get(api, sweep)
    assert (running["state"], running["counts"]["running"], running["counts"]["queued"]) == ("running", 1, 2)
    work.write(lambda session: leases.fail(session, claim, LOST))
    assert get(api, sweep)["state"] == "running"
    work.succeed(work.claimed())
    assert get(api, sweep)["progress"]["step"] == 2
    work.write(lambda session: leases.fail(session, work.claimed(), LOST))
    done = get(api, sweep)
    assert (done["state"], done["counts"]["failed"], done["counts"]["succeeded"]) == ("succeeded", 2, 1)
    assert done["finished_at"] is not None and done["progress"] == {"step": 3, "total": 3, "eta_s": 0}
    assert [member["error"] for member in done["experiments"]] == [LOST, None, LOST]


def test_a_sweep_has_failed_only_if_all_of_it_failed(
    api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any
) -> None:
    sweep = post(sweep_spec | {"seeds": 1})
    for _ in range(3):
        claim = work.claimed()
        work.write(lambda session, claim=claim: leases.fail(session, claim, LOST))
    assert get(api, sweep)["state"] == "failed"
    assert get(api, sweep, "/curve")["points"][0]["i_nce"] is None


def test_progress_counts_the_shares_of_what_runs(
    api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any
) -> None:
    sweep = post(sweep_spec | {"seeds": 1})
    work.succeed(work.claimed())
    progress = experiments.IDLE | {"stage": "pretrain", "step": 200, "total": 400}
    claim = work.claimed()
    work.write(lambda session: leases.report(session, claim, progress))
    found = get(api, sweep)["progress"]
    assert 1.4 < found["step"] < 1.5
    assert found["eta_s"] > 0


@pytest.mark.parametrize(
    ("stage", "step", "total", "done"),
    [
        (None, 0, None, 0),
        ("views", 200, 400, 0.25),
        ("pretrain", 0, None, 0.5),
        ("pretrain", 200, 400, 0.75),
        ("tasks", 1, 3, 1),
    ],
)
def test_learning_views_is_half_of_a_training(
    api: TestClient,
    post: Callable[[Json], Json],
    own: Callable[..., str],
    work: Any,
    stage: str | None,
    step: int,
    total: int | None,
    done: float,
) -> None:
    base = {"dataset": {"name": own(60, 3)}, "views": {"kind": "learned"}}
    sweep = post({"base": base, "axis": {"path": "views.steps", "values": [400]}, "seeds": 1})
    claim, progress = work.claimed(), experiments.IDLE | {"stage": stage, "step": step, "total": total}
    work.write(lambda session: leases.report(session, claim, progress))
    assert get(api, sweep)["progress"]["step"] == pytest.approx(0.95 * done, abs=0.001)


def test_cancel_stops_what_is_not_finished(api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any) -> None:
    sweep = post(sweep_spec)
    work.succeed(work.claimed())
    running = work.claimed()
    answer = api.post(f"/v1/sweeps/{sweep['id']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    assert [member["state"] for member in answer.json()["experiments"]] == ["succeeded", "cancelling", *["cancelled"] * 4]
    work.write(lambda session: leases.confirm_cancelled(session, running))
    assert get(api, sweep)["state"] == "cancelled"
    again = api.post(f"/v1/sweeps/{sweep['id']}/cancel")
    assert (again.status_code, again.json()["state"]) == (409, "cancelled")


def test_retry_queues_what_failed_or_was_cancelled(
    api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any
) -> None:
    sweep = post(sweep_spec)
    url = f"/v1/sweeps/{sweep['id']}"
    refused = api.post(f"{url}/retry")
    assert (refused.status_code, refused.json()["state"]) == (409, "queued")
    work.succeed(work.claimed())
    failing = work.claimed()
    work.write(lambda session: leases.fail(session, failing, LOST))
    api.post(f"{url}/cancel")
    answer = api.post(f"{url}/retry")
    assert (answer.status_code, answer.headers["Location"]) == (202, url)
    before, after = sweep["experiments"], answer.json()["experiments"]
    assert [member["state"] for member in after] == ["succeeded", *["queued"] * 5]
    assert after[0]["id"] == before[0]["id"]
    assert not {member["id"] for member in before[1:]} & {member["id"] for member in after[1:]}
    assert [(member["index"], member["seed"]) for member in after] == [(member["index"], member["seed"]) for member in before]
    assert api.get(f"/v1/experiments/{after[1]['id']}").json()["retry_of"] == failing.id
    work.finish_all(lambda _: (1.0, 0.8))
    assert get(api, sweep)["state"] == "succeeded"
    assert api.post(f"{url}/retry").status_code == 409


def test_delete_takes_the_experiments_made_for_it(
    api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any
) -> None:
    sweep = post(sweep_spec)
    url = f"/v1/sweeps/{sweep['id']}"
    refused = api.delete(url)
    assert (refused.status_code, refused.json()["state"]) == (409, "queued")
    work.finish_all(lambda _: (1.0, 0.8))
    member = f"/v1/experiments/{sweep['experiments'][0]['id']}"
    assert api.delete(member).status_code == 409
    assert api.delete(url).status_code == 204
    assert api.get(url).status_code == api.get(member).status_code == api.get(f"{url}/curve").status_code == 404
    assert api.get("/v1/experiments").json()["data"] == []


# Reuse


def test_finished_twins_are_reused_and_say_so(api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any) -> None:
    first = post(sweep_spec)
    work.finish_all(lambda _: (1.0, 0.8))
    wider = post(sweep_spec | {"axis": {"path": "views.sigma", "values": [0.1, 0.3]}, "name": "another title"})
    assert [member["reused"] for member in wider["experiments"]] == [True, True, False, False]
    assert [member["id"] for member in wider["experiments"][:2]] == [member["id"] for member in first["experiments"][:2]]
    assert (wider["counts"]["succeeded"], wider["counts"]["queued"]) == (2, 2)
    whole = post(sweep_spec)
    assert whole["state"] == "succeeded" and all(member["reused"] for member in whole["experiments"])
    assert not any(member["reused"] for member in first["experiments"])


@pytest.mark.parametrize("change", [{"pretrain": {"steps": 7}}, {"seed": 100}, {"tasks": [{"kind": "knn"}]}])
def test_another_spec_is_not_reused(post: Callable[[Json], Json], sweep_spec: Json, work: Any, change: Json) -> None:
    post(sweep_spec)
    work.finish_all(lambda _: (1.0, 0.8))
    other = post(sweep_spec | {"base": sweep_spec["base"] | change})
    assert not any(member["reused"] for member in other["experiments"])


def test_other_data_of_the_same_name_is_trained_on_anew(
    post: Callable[[Json], Json], sweep_spec: Json, work: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SWEETSPOT_DATASETS", str(tmp_path))
    settings.cache_clear()

    def store(seed: int) -> None:
        draw = np.random.default_rng(seed)
        pixels, labels = draw.integers(0, 256, (200, 16, 16), dtype=np.uint8), draw.integers(0, 2, 200)
        np.savez(tmp_path / "mine.npz", x=pixels, y=labels)

    try:
        own = sweep_spec | {"base": sweep_spec["base"] | {"dataset": {"name": "mine"}}}
        store(0)
        post(own)
        work.finish_all(lambda _: (1.0, 0.8))
        assert all(member["reused"] for member in post(own)["experiments"])
        store(1)
        assert not any(member["reused"] for member in post(own)["experiments"])
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_title_tags_priority_and_limits_do_not_change_the_numbers(
    post: Callable[[Json], Json], sweep_spec: Json, work: Any
) -> None:
    post(sweep_spec)
    work.finish_all(lambda _: (1.0, 0.8))
    other = {"name": "b", "tags": ["t"], "priority": 3, "limits": {"seconds": 60}}
    assert all(member["reused"] for member in post(sweep_spec | {"base": sweep_spec["base"] | other})["experiments"])


def test_what_failed_is_not_reused(post: Callable[[Json], Json], sweep_spec: Json, work: Any) -> None:
    post(sweep_spec | {"seeds": 1})
    for _ in range(3):
        claim = work.claimed()
        work.write(lambda session, claim=claim: leases.fail(session, claim, LOST))
    assert not any(member["reused"] for member in post(sweep_spec | {"seeds": 1})["experiments"])


def test_what_another_sweep_reuses_outlives_the_sweep_it_was_made_for(
    api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any
) -> None:
    first = post(sweep_spec)
    work.finish_all(lambda _: (1.0, 0.8))
    second = post(sweep_spec | {"axis": {"path": "views.sigma", "values": [0.7]}})
    assert api.delete(f"/v1/sweeps/{first['id']}").status_code == 204
    left = {experiment["id"] for experiment in api.get("/v1/experiments").json()["data"]}
    assert left == {member["id"] for member in second["experiments"]}
    assert get(api, second)["state"] == "succeeded"
    assert api.delete(f"/v1/sweeps/{second['id']}").status_code == 204
    assert {experiment["id"] for experiment in api.get("/v1/experiments").json()["data"]} == left


def test_a_twin_is_not_deleted_from_under_the_sweep_that_reuses_it(
    api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any
) -> None:
    first = post(sweep_spec)
    work.finish_all(lambda _: (1.0, 0.8))
    trainings = [(0, ExperimentSpec.model_validate(api.get(f"/v1/experiments/{first['experiments'][0]['id']}").json()["spec"]))]
    with open_session() as session, ThreadPoolExecutor(1) as pool:
        second = sweeps.create(session, "", first["spec"], trainings)
        deleting = pool.submit(api.delete, f"/v1/sweeps/{first['id']}")
        with pytest.raises(TimeoutError):
            deleting.result(0.3)
        session.commit()
        assert deleting.result().status_code == 204
    (member,) = api.get(f"/v1/sweeps/{second.id}").json()["experiments"]
    assert (member["id"], member["reused"]) == (first["experiments"][0]["id"], True)


def test_of_two_retries_at_once_one_retries(api: TestClient, post: Callable[[Json], Json], sweep_spec: Json) -> None:
    sweep = post(sweep_spec)
    api.post(f"/v1/sweeps/{sweep['id']}/cancel")
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: api.post(f"/v1/sweeps/{sweep['id']}/retry"), range(2)))
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    assert len(api.get("/v1/experiments?state=queued").json()["data"]) == 6


# The curve


@pytest.fixture
def traced(post: Callable[[Json], Json], digits: Json, work: Any) -> Json:
    sweep = post(digits)
    work.finish_all(measure)
    return sweep


def test_the_curve_of_the_contract(api: TestClient, traced: Json) -> None:
    curve = get(api, traced, "/curve")
    assert curve["axis"]["path"] == "views.sigma" and curve["axis"]["values"] == SIGMAS
    assert [point["value"] for point in curve["points"]] == SIGMAS
    assert [point["i_nce"] for point in curve["points"]] == pytest.approx(NATS)
    point = curve["points"][4]
    assert point["tasks"]["classification"]["value"] == pytest.approx(0.86)
    assert point["tasks"]["classification"]["seeds"] == 3
    assert set(point) >= {"i_nce_ci", "log_k", "saturated", "task_information", "nuisance", "regime", "experiments"}
    assert point["experiments"] == [member["id"] for member in traced["experiments"][12:15]]
    verdict = curve["verdicts"]["classification"]
    assert verdict["shape"] == "inverted_u"
    assert max(verdict["two_lines"]["p_left"], verdict["two_lines"]["p_right"]) < 0.05
    assert set(verdict["sweet_spot"]) >= {"value", "value_ci", "i_nce", "i_nce_ci", "accuracy"}
    assert verdict["sweet_spot"]["value"] in (0.7, 1.0)
    regimes = [point["regime"] for point in curve["points"]]
    assert (regimes[0], regimes[4], regimes[7]) == ("excess_noise", "sweet_spot", "missing_information")


def test_the_curve_shows_what_the_views_share_about_the_class_and_beside_it(api: TestClient, traced: Json) -> None:
    points = get(api, traced, "/curve")["points"]
    assert [point["nuisance"] for point in points] == pytest.approx([0.25 * nats for nats in NATS])
    assert [point["task_information"] for point in points] == pytest.approx([0.75 * nats for nats in NATS])
    rows = csv.DictReader(io.StringIO(api.get(f"/v1/sweeps/{traced['id']}/curve.csv").text))
    assert [float(row["nuisance"]) for row in rows] == [point["nuisance"] for point in points]


def test_the_curve_says_how_well_measures_predict_accuracy(api: TestClient, traced: Json) -> None:
    curve = get(api, traced, "/curve")
    assert [set(point["quality"]) for point in curve["points"]] == [{"lidar", "rankme", "alignment", "uniformity"}] * 8
    predictors = curve["predictors"]["classification"]
    assert predictors["rankme"] == {"rho": pytest.approx(1), "p": pytest.approx(2 / math.factorial(8)), "points": 8}
    assert predictors["lidar"] is None  # the same at each point
    assert predictors["nuisance"] == predictors["task_information"] == predictors["i_nce"]


def test_the_curve_of_unlabelled_items_has_no_parts(
    api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any
) -> None:
    sweep = post(sweep_spec)
    work.succeed(work.claimed(), labelled=False)
    point = get(api, sweep, "/curve")["points"][0]
    assert (point["i_nce"], point["nuisance"], point["task_information"]) == (2.64, None, None)


def test_a_curve_of_results_without_quality_and_parts_has_none(
    api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any
) -> None:
    sweep = post(sweep_spec)
    work.succeed(claim := work.claimed())

    def forget(session: Session) -> None:
        row = experiments.get(session, claim.id)
        row.results = {**(row.results or {}), "quality": None, "information": None}

    work.write(forget)
    point = get(api, sweep, "/curve")["points"][0]
    assert (point["i_nce"], point["quality"], point["nuisance"]) == (2.64, {}, None)
    assert api.get(f"/v1/experiments/{claim.id}").json()["results"]["quality"] is None


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_by_suffix_and_by_accept(suffix: str, api: TestClient, traced: Json) -> None:
    url = f"/v1/sweeps/{traced['id']}/curve"
    named, accepted = api.get(f"{url}.{suffix}"), api.get(url, headers={"Accept": FORMATS[suffix].split(";")[0]})
    assert named.headers["Content-Type"] == accepted.headers["Content-Type"] == FORMATS[suffix]
    assert accepted.headers["Vary"] == "Accept"
    assert named.content == accepted.content or suffix == "pdf"  # whose parts come in any order
    beginnings = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<svg", "csv": b"value,", "json": b"{", "vl.json": b"{"}
    assert named.content.startswith(beginnings[suffix])


def test_the_same_numbers_in_each_format_digit_for_digit(api: TestClient, traced: Json) -> None:
    curve = get(api, traced, "/curve.json")
    numbers = [
        (point["i_nce"], point["tasks"]["classification"]["value"], *point["tasks"]["classification"]["ci"])
        for point in curve["points"]
    ]
    rows = list(csv.DictReader(io.StringIO(api.get(f"/v1/sweeps/{traced['id']}/curve.csv").text)))
    columns = ("i_nce", "classification", "classification_low", "classification_high")
    assert [tuple(float(row[name]) for name in columns) for row in rows] == numbers
    assert [row["experiments"].split() for row in rows] == [point["experiments"] for point in curve["points"]]
    drawn = json.dumps(get(api, traced, "/curve.vl.json"))
    assert all(json.dumps(number) in drawn for row in numbers for number in row)
    assert "vega-lite/v6" in drawn
    svg = ElementTree.fromstring(api.get(f"/v1/sweeps/{traced['id']}/curve.svg").content)
    words = " ".join("".join(node.itertext()) for node in svg.iter() if node.tag.endswith("}text"))
    assert "noise on digits" in words and "0.7" in words and "inverted U" in words


def test_a_curve_without_a_name_says_what_it_compares(
    api: TestClient, post: Callable[[Json], Json], digits: Json, spec: Json, work: Any
) -> None:
    along = {"views.sigma": SIGMAS, "base": [{"views": spec["views"] | {"sigma": sigma}} for sigma in SIGMAS]}
    sweeps = {path: post(digits | {"name": "", "axis": {"path": path, "values": values}}) for path, values in along.items()}
    work.finish_all(measure)
    assert "views.sigma on digits" in api.get(f"/v1/sweeps/{sweeps['views.sigma']['id']}/curve.svg").text
    assert "recipes on digits" in api.get(f"/v1/sweeps/{sweeps['base']['id']}/curve.svg").text


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("text/html", "application/json"),
        ("text/*", "text/csv"),
        ("image/*", "image/svg+xml"),
        ("application/json;q=0.1, text/csv", "text/csv"),
        ("text/csv;q=0.5, image/png;q=0.8, */*;q=0.1", "image/png"),
        ("text/csv;q=0, */*;q=0.1", "application/json"),
        ("TEXT/CSV", "text/csv"),
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", "image/png"),
        (";;q=,,[", "application/json"),
    ],
)
def test_accept_is_negotiated(accept: str, kind: str, api: TestClient, post: Callable[[Json], Json], sweep_spec: Json) -> None:
    url = f"/v1/sweeps/{post(sweep_spec)['id']}/curve"
    assert api.get(url, headers={"Accept": accept}).headers["Content-Type"].split(";")[0] == kind


def test_a_curve_grows_while_its_sweep_runs(api: TestClient, post: Callable[[Json], Json], digits: Json, work: Any) -> None:
    sweep = post(digits)
    empty = get(api, sweep, "/curve")
    assert [point["i_nce"] for point in empty["points"]] == [None] * 8
    assert empty["verdicts"] == {}
    for _ in range(4):
        claim = work.claimed()
        work.succeed(claim, *measure(claim.spec))
    work.claimed()
    partial = get(api, sweep, "/curve")
    assert [len(point["experiments"]) for point in partial["points"]] == [3, 1, 0, 0, 0, 0, 0, 0]
    assert partial["verdicts"]["classification"]["shape"] == "unclear"
    for suffix in FORMATS:
        assert api.get(f"/v1/sweeps/{sweep['id']}/curve.{suffix}").status_code == 200


def test_one_task_may_be_drawn_alone(api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any) -> None:
    tasks = [{"kind": "classification"}, {"kind": "knn", "name": "neighbours"}]
    sweep = post(sweep_spec | {"base": sweep_spec["base"] | {"tasks": tasks}})
    work.finish_all(lambda _: (1.0, 0.8))
    assert list(get(api, sweep, "/curve")["verdicts"]) == ["classification", "neighbours"]
    assert api.get(f"/v1/sweeps/{sweep['id']}/curve.svg?task=neighbours").status_code == 200
    refused = api.get(f"/v1/sweeps/{sweep['id']}/curve.svg?task=sailing")
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "query/task")
    assert "neighbours" in refused.json()["errors"][0]["message"]


def test_a_sweep_of_recipes_has_a_curve(api: TestClient, post: Callable[[Json], Json], sweep_spec: Json, work: Any) -> None:
    recipes = [{"kind": "crop", "area": 0.2}, {"kind": "noise"}]
    sweep = post(sweep_spec | {"axis": {"path": "views", "values": recipes, "labels": ["crops", "noise"]}})
    work.finish_all(lambda spec: (1.0, 0.8) if spec["views"]["kind"] == "crop" else (2.0, 0.7))
    curve = get(api, sweep, "/curve")
    assert [point["label"] for point in curve["points"]] == ["crops", "noise"]
    for suffix in FORMATS:
        assert api.get(f"/v1/sweeps/{sweep['id']}/curve.{suffix}").status_code == 200


# Presets


@pytest.fixture
def own(embedded: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Writes RGB images of one's own, an npz in the folder of datasets: its name."""
    monkeypatch.setenv("SWEETSPOT_DATASETS", str(tmp_path))
    settings.cache_clear()

    def own(items: int, classes: int | None, side: int = 24) -> str:
        arrays = {"x": np.zeros((items, side, side, 3), dtype=np.uint8)}
        if classes is not None:
            arrays["y"] = np.arange(items) % classes
        np.savez(tmp_path / "mine.npz", **arrays)
        return "mine"

    yield own
    monkeypatch.undo()
    settings.cache_clear()


@pytest.mark.parametrize("preset", ["crop-area", "fig5-jitter", "frequency", "fig4-colour-spaces"])
@pytest.mark.parametrize(
    ("items", "classes", "tasks"),
    [
        (20, None, []),
        (60, 3, ["classification", "knn"]),  # of which 36 have labels to give, so a budget of 100 is left out
        (200, 3, ["classification", "100 labels", "knn"]),
    ],
)
def test_a_preset_runs_on_data_of_one_s_own(
    api: TestClient, own: Callable[..., str], preset: str, items: int, classes: int | None, tasks: list[str]
) -> None:
    answer = api.post(f"/v1/presets/{preset}/run", json={"dataset": own(items, classes)})
    assert answer.status_code == 202, answer.text
    spec = api.get(f"/v1/experiments/{answer.json()['experiments'][0]['id']}").json()["spec"]
    held_out = round(0.4 * items)
    assert spec["pretrain"]["batch_size"] == items - held_out
    assert spec["mi"]["k"] == held_out - held_out // 4
    assert [task["name"] for task in spec["tasks"]] == tasks


@pytest.mark.parametrize(("classes", "tasks"), [(None, []), (3, ["classification"])])
def test_a_preset_on_an_upload_that_is_still_decoded_goes_by_what_it_turns_out_to_hold(
    api: TestClient, work: Any, classes: int | None, tasks: list[str]
) -> None:
    made = api.post("/v1/datasets", files={"file": ("mine.npz", b"PK")}).json()
    sweep = api.post("/v1/presets/crop-area/run", json={"dataset": made["id"]}).json()
    early = api.post("/v1/presets/crop-area/run?dry_run=true", json={"dataset": made["id"]})
    assert (early.status_code, early.json()["state"]) == (409, "processing")
    claim = work.write(lambda session: leases.claim_dataset(session, "worker-1", 60))
    facts = DatasetFacts(name=made["id"], train=36, test=24, channels=3, image_size=24, classes=classes)
    work.write(lambda session: leases.succeed_dataset(session, claim, facts.model_dump(mode="json")))
    member = api.get(f"/v1/experiments/{sweep['experiments'][0]['id']}").json()
    assert (member["state"], member["spec"]["pretrain"]["batch_size"], member["spec"]["mi"]["k"]) == ("queued", 36, 18)
    assert [task["name"] for task in member["spec"]["tasks"]] == tasks


def test_where_no_task_of_a_preset_can_be_done_those_are_that_the_labels_allow(api: TestClient, own: Callable[..., str]) -> None:
    sweep = api.post("/v1/presets/digits-noise/run", json={"dataset": own(60, 2)}).json()  # whose one task takes 50 labels
    assert [(task["name"], task["labels"]) for task in sweep["spec"]["base"]["tasks"]] == [("classification", None)]


@pytest.mark.parametrize(
    ("preset", "dataset", "words"),
    [
        ("crop-area", "nowhere", "'nowhere' is not under"),
        ("patch-grid", "mine", "(/base/views/stride of the preset)"),
        ("temporal-gap", "mine", "temporal works on clips"),
        ("fig7-learned-rgb", "mine", "64 pairs a step"),
    ],
)
def test_data_that_does_not_fit_a_preset_is_the_fault_of_the_run_s_dataset(
    api: TestClient, own: Callable[..., str], preset: str, dataset: str, words: str
) -> None:
    own(60, 3, side=15)
    answer = api.post(f"/v1/presets/{preset}/run", json={"dataset": dataset})
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["pointer"]) == (422, "/dataset")
    assert words in error["message"]


def test_a_dry_run_of_a_preset_queues_nothing(api: TestClient) -> None:
    answer = api.post("/v1/presets/digits-noise/run?dry_run=true", json={"seed": 4})
    assert answer.status_code == 200
    assert (answer.json()["cost"]["trainings"], answer.json()["spec"]["base"]["seed"]) == (24, 4)
    assert api.get("/v1/experiments").json()["data"] == api.get("/v1/sweeps").json()["data"] == []


def test_a_preset_runs_as_a_sweep(api: TestClient) -> None:
    (preset,) = [found for found in api.get("/v1/catalog/presets").json()["data"] if found["name"] == "digits-noise"]
    answer = api.post("/v1/presets/digits-noise/run")
    sweep = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/sweeps/{sweep['id']}")
    assert sweep["counts"]["total"] == 24
    assert sweep["spec"]["axis"].items() >= preset["sweep"]["axis"].items()
    assert sweep["name"] == preset["sweep"]["name"]


def test_a_preset_may_have_another_title_and_seed(api: TestClient) -> None:
    sweep = api.post("/v1/presets/digits-noise/run", json={"name": "mine", "seed": 40}).json()
    assert (sweep["name"], sorted({member["seed"] for member in sweep["experiments"]})) == ("mine", [40, 41, 42])


@pytest.mark.parametrize(("body", "pointer"), [({"seed": 2**31 - 1}, "/seed"), ({"seed": -1}, "/seed"), ({"sead": 1}, "/sead")])
def test_a_bad_run_of_a_preset_names_the_field(api: TestClient, body: Json, pointer: str) -> None:
    answer = api.post("/v1/presets/digits-noise/run", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_there_is_no_such_preset(api: TestClient) -> None:
    answer = api.post("/v1/presets/lunch/run")
    assert answer.status_code == 404
    assert "digits-noise" in answer.json()["detail"]
