"""Experiments, sweeps and curves as tables for a terminal."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.client import Json
from ml.spec import in_words

if TYPE_CHECKING:
    from app.persistence.models import ApiKey

_COLOURS = {
    **dict.fromkeys(("succeeded", "ready"), "green"),
    **dict.fromkeys(("failed", "rejected"), "red"),
    **dict.fromkeys(("running", "processing"), "cyan"),
    **dict.fromkeys(("cancelling", "cancelled"), "yellow"),
}
_KINDS = {"lower": "at least", "upper": "at most", "neither": "no bound"}
_QUALITY = {
    "lidar": "dimensions that tell items apart; more is better",
    "rankme": "dimensions in use; more is better",
    "alignment": "squared distance of a pair; less is better",
    "uniformity": "log potential of strangers; less is better",
    "alpha_req": "decay of the spectrum; nearer to 1 is better",
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
        table.add_row(name, Text(f"{_nats(estimate)}{_bound(estimate)}"))
    for name, words in _information(results.get("information")):
        table.add_row(name, Text(words))
    if learned := results.get("views"):
        reading = "" if learned["i_nce"] is None else f", at {learned['i_nce']:.3f} nats by the game's own reading"
        table.add_row("views", f"learned in {learned['steps']} steps{reading}")
    for name, task in results["tasks"].items():
        low, high = task["ci"]
        reference = "" if task.get("supervised") is None else f", with labels {task['supervised']:.3f}"
        words = f"{task['metric']} {task['value']:.3f} [{low:.3f}, {high:.3f}], chance {task['chance']:.3f}{reference}"
        table.add_row(name, words)
    for name, value in (results.get("quality") or {}).items():
        if name in _QUALITY and value is not None:
            table.add_row(name, f"{value:.3f}, {_QUALITY[name]}")
    return table


def sweep(found: Json) -> RenderableType:
    """How a sweep and each of its experiments stand."""
    table = _facts(found)
    counts = found["counts"]
    table.add_row("counts", ", ".join(f"{count} {state}" for state, count in counts.items() if count))
    axis = found["spec"]["axis"]
    for name, words in _search(found.get("search")):
        table.add_row(name, Text(words))
    members = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (axis["path"], "seed", "experiment", "state", ""):
        members.add_column(column)
    for member in found["experiments"]:
        progress = member["progress"]
        note = ""
        if member["state"] == "running":
            note = f"{progress['stage']} {progress['step']}/{progress['total']}" if progress["total"] else "starting"
        if found.get("search") and found["search"]["places"][member["index"]]["short"]:
            note = f"short {note}".rstrip()
        note = "reused" if member["reused"] else member["error"]["message"] if member["error"] else note
        label = axis["labels"][member["index"]] if axis.get("labels") else in_words(member["value"])
        members.add_row(Text(label), str(member["seed"]), member["id"], _state(member["state"]), Text(note))
    return Group(table, members)


def predictors(curve: Json) -> Table:
    """How well each measure predicts how well each task is done along a curve; empty while too little is measured."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption="Spearman's rank correlation with how well the task is done")
    table.add_column("predictor")
    known = {name: {measure: one for measure, one in of_task.items() if one} for name, of_task in curve["predictors"].items()}
    tasks = [name for name, of_task in known.items() if of_task]
    for name in tasks:
        table.add_column(Text(name))
    for measure in dict.fromkeys(measure for name in tasks for measure in known[name]):
        table.add_row(measure, *(_correlation(known[name].get(measure)) for name in tasks))
    return table


def ablation(curve: Json) -> Table:
    """What leaving out each operation of a recipe costs each task; empty of a sweep that does not ablate, or is at its start."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption="what leaving an operation out costs; ± are 95 %, p after Holm")
    for column in ("task", "operation", "cost", "p", "nats more"):
        table.add_column(column)
    for name, of_task in (curve.get("ablation") or {}).items():
        for one in of_task:
            p = "-" if one["p"] is None else f"{one['p']:.2g}"
            nats = _apart(one["nats"]) if one["nats"] else "-"
            table.add_row(Text(name), one["operation"], f"{_apart(one['cost'])} {one['metric']}", p, nats)
    return table


def paper(found: Json | None) -> Table:
    """The published numbers of the experiment that a preset repeats; empty where there are none."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=f"published: {found['source']}" if found else None)
    for column in ("", "task", "published", "on"):
        table.add_column(column)
    for number in found["numbers"] if found else ():
        value = f"{number['metric'].replace('_', ' ')} {number['value']:.3g}"
        table.add_row(Text(number["label"]), Text(number["task"] or ""), value, Text(number["setting"]))
    return table


def presets(found: Iterable[Json]) -> Table:
    """The presets, a line for each size, with what it takes on one worker."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("preset", no_wrap=True)
    for column in ("size", "trainings", "one worker", "what it asks, and why it cannot be run"):
        table.add_column(column)
    for one in found:
        for index, (size, takes) in enumerate(one["sizes"].items()):
            told = one["description"] if index == 0 else ""
            if takes["reason"]:
                told += f"{' ' if told else ''}[{size}: {takes['reason']}]"
            cost = _duration(takes["cost"]["seconds"]) if takes["cost"] else "-"
            table.add_row("" if index else one["name"], size, str(takes["trainings"]), cost, Text(told))
    return table


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


def keys(found: Iterable["ApiKey"]) -> Table:
    """Keys of the API, one a line."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("key", no_wrap=True, min_width=36)  # to be copied
    for column in ("name", "owner", "scopes", "ends", "last used", "limits"):
        table.add_column(column, overflow="fold")
    for one in found:
        limits = {
            "queued": one.max_queued,
            "running": one.max_running,
            "bytes": one.max_stored_bytes,
            "a minute": one.per_minute,
        }
        ends = f"{one.expires_at:%Y-%m-%d}" if one.expires_at else "never"
        ends = f"revoked {one.revoked_at:%Y-%m-%d}" if one.revoked_at else ends
        used = f"{one.last_used_at:%Y-%m-%d %H:%M}" if one.last_used_at else "never"
        table.add_row(one.id, Text(one.name), Text(one.owner), ", ".join(one.scopes), ends, used, _limits(limits))
    return table


def _limits(of_key: Mapping[str, int | None]) -> str:
    return ", ".join(f"{limit} {name}" for name, limit in of_key.items() if limit is not None) or "none"


def checkpoint(found: Json) -> RenderableType:
    """What an uploaded checkpoint is."""
    table = _rows()
    for field in ("id", "name", "format"):
        table.add_row(field, Text(found[field]))
    table.add_row("size", f"{found['size']} bytes")
    return table


def mi_estimate(found: Json) -> RenderableType:
    """How an estimate of two arrays' information stands, and what each estimator found."""
    table = _facts(found)
    progress = found["progress"]
    if progress["stage"] and found["state"] == "running":
        table.add_row("progress", f"step {progress['step']} of {progress['total'] or '?'}")
    if found["error"]:
        table.add_row("error", Text(found["error"]["message"], style="red"))
    if found["same_as"]:
        table.add_row("same as", found["same_as"])
    results = found["results"]
    if not results:
        return table
    of_x, of_y = results["dimensions"]
    components = "principal components" if results["reduced"] else "dimensions"
    table.add_row("measured", f"{results['pairs']} pairs of {of_x} and {of_y} {components}, {results['k']} candidates")
    for name, columns in results["dropped"].items():
        if columns:
            table.add_row("left out", f"of {name} {len(columns)} constant column(s)")
    estimates = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("estimator", "nats", "", "ceiling", "caution"):
        estimates.add_column(column)
    for name, estimate in results["mi"].items():
        ceiling = f"{estimate['log_k']:.2f}" if estimate["log_k"] is not None else ""
        estimates.add_row(name, _with_error(estimate), _KINDS[estimate["kind"]], ceiling, Text(estimate["caution"] or ""))
    return Group(table, estimates)


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
    table = _rows()
    table.add_row("id", found["id"])
    if found["name"]:
        table.add_row("name", Text(found["name"]))
    table.add_row("state", _state(found["state"]))
    for field in ("created_at", "started_at", "finished_at"):
        if found[field]:
            table.add_row(field.removesuffix("_at"), found[field])
    return table


def _rows() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column()
    return table


def _nats(estimate: Json) -> str:
    return f"{_with_error(estimate)} nats"


def _with_error(estimate: Json) -> str:
    return f"{round(estimate['value'], 3) + 0.0:.3f} ± {estimate['stderr']:.3f}"  # no -0.000


def _bound(estimate: Json) -> str:
    """What an estimate must not be taken for."""
    if estimate["log_k"] is not None:
        return f", of at most log K = {estimate['log_k']:.2f}" + (", saturated: at least" if estimate["saturated"] else "")
    side = {"lower": ", a lower bound", "upper": ", an upper bound", "neither": ""}[estimate["kind"]]
    return side + (f": {estimate['caution']}" if estimate["caution"] else "")


_WHY_ENDED = {
    None: "goes on",
    "tolerance": "ended: the peak is known as well as was asked",
    "trainings": "ended: its trainings are spent",
    "cancelled": "was cancelled",
    "failed": "failed",
}


def _search(found: Json | None) -> Iterator[tuple[str, str]]:
    if found is None:
        return
    error = f": {found['error']}" if found["error"] else ""
    yield "search", f"{_WHY_ENDED[found['reason']]}{error}; {found['spent']:g} of {found['trainings']} trainings begun"
    if peak := found["peak"]:
        low, high = peak["value_ci"]
        between = f"with {peak['level']:.0%} between {low:.4g} and {high:.4g}, whether there is one is the curve's verdict"
        yield "peak", f"of {peak['task']} near {peak['value']:.3g}, {between}; {peak['accuracy']:.3f} is expected there"


def _information(found: Json | None) -> Iterator[tuple[str, str]]:
    """What the views share and keep of each target."""
    if not found or found["target"] is None:
        return
    for target, about in {found["target"]: found, **found["by_target"]}.items():
        yield "total", f"{_nats(about['total'])} shared by the views of {about['items']} items with a {target}"
        yield "task", f"{_nats(about['task'])} of it about {target}"
        yield "nuisance", f"{_nats(about['nuisance'])} of it beside {target}"
        probe, missing = about["probe"], about["missing"]
        told = ", ".join(f"{_with_error(probe[view])} in {view}" for view in ("v1", "v2", "both"))
        yield "probe", f"{told}, of the {probe['entropy']:.3f} nats of {target}"
        if missing:
            lost = ", ".join(f"{_with_error(missing[f'missing_{view}'])} in {view}" for view in ("v1", "v2"))
            verdict = "the views keep all of it" if missing["holds"] else "the views lose some of it"
            yield "missing", f"{lost}, of the {missing['x']['value']:.3f} nats that items tell of {target}: {verdict}"
            if missing["x"]["caution"]:
                yield "reference", missing["x"]["caution"]


def _apart(found: Json) -> str:
    """A difference with its interval's half-width."""
    half = f" ± {(found['ci'][1] - found['ci'][0]) / 2:.3f}" if found["ci"] else ""
    return f"{round(found['value'], 3) + 0.0:+.3f}{half}"  # no -0.000


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _correlation(found: Json | None) -> str:
    return f"{found['rho']:+.2f}, p = {found['p']:.2g}, {found['points']} values" if found else "-"


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
