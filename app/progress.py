"""Waiting for an experiment or a sweep where somebody watches: live bars on a terminal or in a notebook, lines elsewhere."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from app.client import Json, Sweetspot

_LINE_EVERY = 5.0  # seconds, where there is no terminal
_STAGES = {
    "data": "reading data",
    "views": "learning views",
    "pretrain": "pretraining",
    "information": "measuring I(v1;v2)",
    "quality": "measuring quality",
    "tasks": "probing",
    "decode": "decoding",
    "estimate": "estimating",
}


def follow(
    service: Sweetspot,
    id: str,
    console: Console | None = None,
    timeout: float | None = None,
    on_change: Callable[[Json], None] | None = None,
) -> Json:
    """The experiment, sweep, dataset or estimate once it is finished; `on_change` is told of changes, too."""
    console = console or Console(stderr=True)
    view: _Bars | _Lines = _Bars(console) if _redraws(console) else _Lines(console)

    def show(found: Json) -> None:
        view.show(found)
        if on_change:
            on_change(found)

    with view:
        return service.wait(id, timeout, show)


class _Bars:
    """A bar for the whole, and below it one for each experiment that runs."""

    def __init__(self, console: Console):
        columns = (TextColumn("{task.description}"), BarColumn(18), TextColumn("{task.fields[note]}"))
        self._progress = Progress(*columns, console=console, refresh_per_second=8)
        self._whole: TaskID = self._progress.add_task("", total=None, note="waiting for a worker")
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.refresh()  # in a notebook rich would end with what it drew last
        self._progress.stop()

    def show(self, found: Json) -> None:
        """Bring the bars up to date with an experiment's or a sweep's JSON."""
        if "counts" not in found:
            self._set(self._whole, found["id"][:12], found["progress"], _stage(found))
            return
        whole = found["progress"]
        self._set(self._whole, "sweep", whole, _summary(found, running=False))
        running = {member["id"]: member for member in found["experiments"] if member["state"] in ("running", "cancelling")}
        for id in self._bars.keys() - running.keys():
            self._progress.remove_task(self._bars.pop(id))
        for id, member in running.items():
            if id not in self._bars:
                self._bars[id] = self._progress.add_task("", total=None, note="")
            name = f"  {_last(found['spec']['axis']['path'])} {_text(member['value'])}, seed {member['seed']}"
            self._set(self._bars[id], name, member["progress"], _stage(member))

    def _set(self, bar: TaskID, name: str, progress: Json, note: str) -> None:
        self._progress.update(bar, description=f"{name:<22}", completed=progress["step"], total=progress["total"], note=note)


class _Lines:
    """The whole in a line every few seconds, and at the end."""

    def __init__(self, console: Console):
        self._console = console
        self._next = 0.0

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, found: Json) -> None:
        """Print the state of an experiment or a sweep, unless that was just done."""
        now = time.monotonic()
        if now < self._next and found["finished_at"] is None:
            return
        self._next = now + _LINE_EVERY
        self._console.print(
            _summary(found, running=True) if "counts" in found else f"{found['id']} {_stage(found)}", highlight=False
        )


def _redraws(console: Console) -> bool:
    """Whether what was printed can be replaced; rich does so in a notebook by ipywidgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _summary(sweep: Json, running: bool) -> str:
    counts = sweep["counts"]
    finished = sum(counts[state] for state in ("succeeded", "failed", "cancelled"))
    parts = [f"{finished} of {counts['total']} done"]
    told = ("running", "cancelling", "failed", "cancelled") if running else ("failed", "cancelled")
    parts += [f"{counts[state]} {state}" for state in told if counts[state]]
    eta = sweep["progress"]["eta_s"]
    if eta and finished < counts["total"]:
        parts.append(f"about {duration(eta)} left")
    return ", ".join(parts)


def _stage(found: Json) -> str:
    progress = found["progress"]
    if found["state"] not in ("running", "processing") or not progress["stage"]:
        return str(found["state"])
    eta = f", {duration(progress['eta_s'])} left" if progress["eta_s"] else ""
    return f"{_STAGES.get(progress['stage'], progress['stage'])}{eta}"


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)[:12]
