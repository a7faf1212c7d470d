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
