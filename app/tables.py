"""Experiments, sweeps and curves as tables for a terminal."""

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.client import Json
from ml.spec import in_words

_COLOURS = {
    **dict.fromkeys(("succeeded", "ready"), "green"),
    **dict.fromkeys(("failed", "rejected"), "red"),
    **dict.fromkeys(("running", "processing"), "cyan"),
    **dict.fromkeys(("cancelling", "cancelled"), "yellow"),
}


def experiment(found: Json) -> RenderableType:
    """How an experiment stands, and what it found."""
    table = _facts(found)
    progress = found["progress"]
    if progress["stage"] and found["state"] == "running":
        table.add_row("progress", f"{progress['stage']}, step {progress['step']} of {progress['total'] or '?'}")
    table.add_row("attempt", str(found["attempt"]))
    if found["error"]:
        table.add_row("error", Text(f"{found['error']['code']}: {found['error']['message']}", style="red"))
    results = found["results"] or {"mi": {}, "tasks": {}}
    for name, estimate in results["mi"].items():
        more = f", of at most log K = {estimate['log_k']:.2f}" + (", saturated: at least" if estimate["saturated"] else "")
        table.add_row(name, f"{estimate['value']:.3f} ± {estimate['stderr']:.3f} nats{more}")
    for name, task in results["tasks"].items():
        low, high = task["ci"]
        table.add_row(name, f"{task['metric']} {task['value']:.3f} [{low:.3f}, {high:.3f}], chance {task['chance']:.3f}")
    return table


def sweep(found: Json) -> RenderableType:
    """How a sweep and each of its experiments stand."""
    table = _facts(found)
    counts = found["counts"]
    table.add_row("counts", ", ".join(f"{count} {state}" for state, count in counts.items() if count))
    axis = found["spec"]["axis"]
    members = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (axis["path"], "seed", "experiment", "state", ""):
        members.add_column(column)
    for member in found["experiments"]:
        progress = member["progress"]
        note = f"{progress['stage']} {progress['step']}/{progress['total'] or '?'}" if member["state"] == "running" else ""
        note = "reused" if member["reused"] else member["error"]["message"] if member["error"] else note
        label = axis["labels"][member["index"]] if axis.get("labels") else in_words(member["value"])
        members.add_row(Text(label), str(member["seed"]), member["id"], _state(member["state"]), Text(note))
    return Group(table, members)


def dataset(found: Json) -> RenderableType:
    """How an uploaded dataset stands, and what is known of it."""
    table = _facts(found)
    progress = found["progress"]
    if progress["stage"] and found["state"] == "processing":
        table.add_row("progress", f"{progress['stage']}, {progress['step']} of {progress['total'] or '?'}")
    if found["reason"]:
        table.add_row("reason", Text(found["reason"], style="red"))
    if found["same_as"]:
        table.add_row("same as", found["same_as"])
    facts = found["facts"]
    if facts:
        smallest = f", the smallest side {facts['smallest_side']} px" if facts["smallest_side"] else ""
        table.add_row("layout", facts["layout"] + (f" of {facts['frames']} frames" if facts["frames"] else ""))
        table.add_row("items", f"{facts['train']} for training, {facts['test']} held out")
        table.add_row("images", f"{_channels(facts)}, {facts['dtype']}, seen at {facts['image_size']} px{smallest}")
        table.add_row("classes", str(facts["classes"] or "none: there are no labels"))
    return table


def datasets(found: Iterable[Json]) -> Table:
    """Uploaded datasets, one a line."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("dataset", no_wrap=True, min_width=35)  # to be copied
    for column in ("name", "state", "items", "uploaded"):
        table.add_column(column)
    for one in found:
        items = str(one["facts"]["train"] + one["facts"]["test"]) if one["facts"] else ""
        table.add_row(one["id"], Text(one["name"]), _state(one["state"]), items, one["created_at"])
    return table


def curve(found: Json, task: str | None = None) -> Table:
    """The points of a curve: information, and one task's result where there are tasks."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (found["axis"]["path"], "I_NCE, nats"):
        table.add_column(column, justify="right")
    if task is not None:
        metric = found["verdicts"][task]["metric"]
        table.add_column(Text(f"{task}, {metric}" + " (less is better)" * (metric == "pixels")), justify="right")
        table.add_column("regime")
    table.add_column("")
    for point in found["points"]:
        result = point["tasks"].get(task)
        regime = Text(point["regime"].replace("_", " "), style="bold green" if point["regime"] == "sweet_spot" else "")
        table.add_row(
            Text(point["label"]),
            _with_interval(point["i_nce"], point["i_nce_ci"]),
            *((_with_interval(result["value"], result["ci"]) if result else "-", regime) if task is not None else ()),
            "saturated" if point["saturated"] else "low" if point["low"] else "",
        )
    near = [point["log_k"] for point in found["points"] if point["low"]]
    if near:
        table.caption = (
            f"saturated: I_NCE is at least this, its ceiling log K being {max(near):.2f} nats; "
            "low: probably by more than 5 %; ± are 95 % over seeds"
        )
    return table


def _facts(found: Json) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column()
    table.add_row("id", found["id"])
    if found["name"]:
        table.add_row("name", Text(found["name"]))
    table.add_row("state", _state(found["state"]))
    for field in ("created_at", "started_at", "finished_at"):
        if found[field]:
            table.add_row(field.removesuffix("_at"), found[field])
    return table


def _channels(facts: Json) -> str:
    second = f" and {facts['channels2']}" if facts["channels2"] else ""
    return f"{facts['channels']}{second} channel(s)"


def _state(state: str) -> Text:
    return Text(state, style=_COLOURS.get(state, ""))


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "-"
    half = f" ± {(interval[1] - interval[0]) / 2:.3f}" if interval else ""
    return f"{round(value, 3) + 0.0:.3f}{half}"  # no -0.000
