"""What a terminal shows names metrics and values in words."""

from typing import Any

from rich.console import Console, RenderableType

from app import tables
from ml import spec
from ml.curve import Measurement, TaskResult, trace

SHARED = (["digit"], ["digit", "position"])


def printed(shown: RenderableType) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def test_a_curve_names_its_values_and_the_metric_of_the_task() -> None:
    axis = spec.Axis(path="views.shared", values=SHARED)
    errors = {"place": TaskResult(4.25, (4.0, 4.5), "pixels"), "digit": TaskResult(0.8)}
    curve = trace(axis, [Measurement("exp_0", 1, 0, 2.0, 0.1, 6.0, False, errors)]).model_dump(mode="json")
    of_place = printed(tables.curve(curve, "place"))
    assert "place, pixels (less is better)" in of_place
    assert "digit + position" in of_place and "4.250 ± 0.250" in of_place
    assert "digit, accuracy" in printed(tables.curve(curve, "digit"))


def test_a_curve_without_tasks_has_information_alone() -> None:
    axis = spec.Axis(path="views.shared", values=SHARED)
    measured = [Measurement("exp_0", 1, 0, 5.5, 0.1, 6.0, True, {})]
    shown = printed(tables.curve(trace(axis, measured).model_dump(mode="json")))
    assert "I_NCE, nats" in shown and "regime" not in shown
    assert ["digit", "+", "position", "5.500", "±", "0.196", "saturated"] in [line.split() for line in shown.splitlines()]
    assert ["digit", "-"] in [line.split() for line in shown.splitlines()]


def test_a_sweep_names_its_values_in_words_or_by_its_labels() -> None:
    def of(axis: dict[str, Any]) -> str:
        progress = {"stage": None, "step": 0, "total": None}
        member = {"id": "exp_0", "index": 1, "value": SHARED[1], "seed": 0, "state": "queued", "reused": False, "error": None}
        times = dict.fromkeys(("created_at", "started_at", "finished_at"))
        found = {"id": "swp_0", "name": "", "state": "queued", "counts": {"queued": 1}, "spec": {"axis": axis}, **times}
        return printed(tables.sweep(found | {"experiments": [member | {"progress": progress}]}))

    assert "digit + position" in of({"path": "views.shared", "values": SHARED, "labels": None})
    assert "both" in of({"path": "views.shared", "values": SHARED, "labels": ["one", "both"]})


def test_an_experiment_shows_what_its_views_share_and_how_good_its_representation_is() -> None:
    def estimate(value: float, kind: str = "lower", log_k: float | None = None, caution: str | None = None) -> dict[str, Any]:
        return {"value": value, "stderr": 0.02, "kind": kind, "log_k": log_k, "saturated": False, "caution": caution}

    missing = {"x": estimate(2.2), "missing_v1": estimate(0.6), "missing_v2": estimate(0.7), "holds": False}
    about = {
        "total": estimate(2.6),
        "task": estimate(1.9, "neither"),
        "nuisance": estimate(0.7),
        "items": 539,
        "probe": {"v1": estimate(1.6), "v2": estimate(1.5), "both": estimate(1.8), "entropy": 2.303},
        "missing": missing,
    }
    place = about | {"task": estimate(0.123, "neither"), "missing": None}
    quality = {"lidar": 12.3, "rankme": 20.1, "alignment": 0.4, "uniformity": -2.1, "alpha_req": None, "items": 719, "views": 14}
    estimates = {
        "infonce": estimate(2.6, log_k=6.24),
        "nwj": estimate(2.7, caution="high variance"),
        "smile": estimate(3, "neither"),
    }
    results = {
        "mi": estimates,
        "information": about | {"target": "digit", "by_target": {"background": place}},
        "tasks": {"knn": {"metric": "accuracy", "value": 0.9, "ci": [0.88, 0.92], "chance": 0.1, "supervised": 0.97}},
        "quality": quality,
        "views": {"steps": 200, "i_nce": 1.25, "inverse_error": 1e-6, "log_abs_det": {"mean": 0, "min": 0, "max": 0}},
    }
    times = dict.fromkeys(("created_at", "started_at", "finished_at"))
    found = {"id": "exp_0", "name": "", "state": "succeeded", "progress": {"stage": None}, "attempt": 1, "error": None, **times}
    shown = [" ".join(line.split()) for line in printed(tables.experiment(found | {"results": results})).splitlines()]
    for line in (
        "infonce 2.600 ± 0.020 nats, of at most log K = 6.24",
        "nwj 2.700 ± 0.020 nats, a lower bound: high variance",
        "smile 3.000 ± 0.020 nats",
        "total 2.600 ± 0.020 nats shared by the views of 539 items with a digit",
        "task 1.900 ± 0.020 nats of it about digit",
        "task 0.123 ± 0.020 nats of it about background",
        "nuisance 0.700 ± 0.020 nats of it beside digit",
        "probe 1.600 ± 0.020 in v1, 1.500 ± 0.020 in v2, 1.800 ± 0.020 in both, of the 2.303 nats of digit",
        "missing 0.600 ± 0.020 in v1, 0.700 ± 0.020 in v2, of the 2.200 nats that items tell of digit: the views lose some of it",
        "knn accuracy 0.900 [0.880, 0.920], chance 0.100, with labels 0.970",
        "lidar 12.300, dimensions that tell items apart; more is better",
        "uniformity -2.100, log potential of strangers; less is better",
        "views learned in 200 steps, at 1.250 nats by the game's own reading",
    ):
        assert line in shown
    assert not any(line.startswith(("alpha_req", "items")) for line in shown)
    unlabelled = dict.fromkeys(("target", "by_target", "task", "nuisance", "probe", "missing")) | {"total": estimate(2.6)}
    for nothing in (unlabelled, None):
        bare = printed(tables.experiment(found | {"results": results | {"information": nothing, "quality": None}}))
        assert "0.900 [0.880, 0.920]" in bare and "total" not in bare and "lidar" not in bare


def test_predictors_of_each_task_stand_beside_each_other() -> None:
    lidar, i_nce = {"rho": 0.857, "p": 0.0137, "points": 8}, {"rho": -1.0, "p": 5e-05, "points": 8}
    known = {"knn": {"i_nce": i_nce, "lidar": lidar}, "place": {"i_nce": None, "rankme": lidar}, "none": {"i_nce": None}}
    shown = [line.split() for line in printed(tables.predictors({"predictors": known})).splitlines()]
    assert ["predictor", "knn", "place"] in shown
    assert ["i_nce", "-1.00,", "p", "=", "5e-05,", "8", "values", "-"] in shown
    assert ["lidar", "+0.86,", "p", "=", "0.014,", "8", "values", "-"] in shown
    assert ["rankme", "-", "+0.86,", "p", "=", "0.014,", "8", "values"] in shown
    assert tables.predictors({"predictors": {"none": {"i_nce": None}}}).row_count == 0


def test_what_operations_cost_stands_in_a_table_and_of_other_sweeps_nothing() -> None:
    axis = spec.Axis(path="views", ablate=True, values=[{"kind": "crop"}, {"kind": "noise"}], labels=["all of it", "no crop"])
    measured = [
        Measurement(f"exp_{index}_{seed}", index, seed, 1.0 + index, 0.1, 6.0, False, {"knn": TaskResult(0.8 - 0.1 * index)})
        for index in range(2)
        for seed in range(2)
    ]
    shown = printed(tables.ablation(trace(axis, measured).model_dump(mode="json")))
    assert "crop" in shown and "+0.100" in shown and "+1.000" in shown and "accuracy" in shown
    assert tables.ablation(trace(spec.Axis(path="views.sigma", values=[1]), []).model_dump(mode="json")).row_count == 0


def test_published_numbers_stand_in_a_table_with_their_source() -> None:
    number = {"label": "0.2", "task": None, "metric": "sweet_spot", "value": 0.2, "setting": "c of a crop"}
    shown = printed(tables.paper({"source": "a paper", "finding": "a U", "numbers": [number], "note": None}))
    assert "sweet spot 0.2" in shown and "c of a crop" in shown and "published: a paper" in shown
    assert tables.paper(None).row_count == 0
