"""A sweep as one page to print, to send and to keep: a single HTML file that needs nothing beside it."""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic_core import to_json

from app import bibliography, figure, schemas
from app.middleware import PAGE
from app.presets import PRESETS
from app.version import CODE_VERSION
from ml.curve import ERRORS, QUALITIES, Curve, Interval, Point
from ml.spec import WHOLE, ExperimentSpec, SweepSpec, in_words

MEASURES = {
    "i_nce": ("I_NCE", "nats that the views share"),
    "task_information": ("about the label", "nats that the views share about it"),
    "nuisance": ("nuisance", "nats that they share beside it"),
    "lidar": ("LiDAR", "dimensions that tell items apart; more is better"),
    "rankme": ("RankMe", "dimensions in use; more is better"),
    "alignment": ("alignment", "squared distance of a pair; less is better"),
    "uniformity": ("uniformity", "log potential of strangers; less is better"),
    "alpha_req": ("α-ReQ", "decay of the spectrum; nearer to 1 is better"),
}
REGIMES = {
    "missing_information": "missing information",
    "sweet_spot": "sweet spot",
    "excess_noise": "excess noise",
    "unknown": "",
}
POLICY = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {PAGE}"
NAMES = {"sigma": "σ"}
REASONS = {
    "tolerance": "the peak is known as well as was asked",
    "trainings": "its trainings are spent",
    "cancelled": "it was cancelled",
    "failed": "it failed",
}


@dataclass(frozen=True)
class Pairs:
    """View pairs as an encoder saw them, as a PNG, and at which point of the curve."""

    place: str
    point: Point
    png: bytes = field(repr=False)

    @property
    def url(self) -> str:
        """The picture itself, in words that a browser reads."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Sources:
    """What a report is made of: the sweep as the API answers it, its curve, and the finished experiments' results by id."""

    sweep: schemas.Sweep
    curve: Curve
    title: str
    dataset: str
    specs: Mapping[str, Mapping[str, Any]]
    results: Mapping[str, Mapping[str, Any]]
    pairs: Sequence[Pairs]
    url: str


def render(sources: Sources) -> str:
    """The whole file."""
    curve, sweep = sources.curve, sources.sweep
    split = any(point.task_information is not None for point in curve.points)
    return _environment().get_template("report.html").render(
        sources=sources,
        sweep=sweep,
        curve=curve,
        split=split,
        spec=sweep.spec,
        axis=sweep.spec.axis,
        name=_name(curve.axis.path),
        title=sources.title,
        preset=_preset(sweep.spec),
        question=_question(sweep.spec, sources.dataset, list(curve.verdicts)),
        answers=_answers(curve),
        notice=_notice(sweep),
        drawn=_inline(figure.figure(curve, sources.title), "curve"),
        shares=_inline(figure.information(curve, "What the views share" + ", split" * split), "parts"),
        measures=[(key, *MEASURES[key]) for key in MEASURES if any(key in found for found in curve.predictors.values())],
        qualities=[(key, *MEASURES[key]) for key in QUALITIES if any(key in point.quality for point in curve.points)],
        ablation=curve.ablation,
        ablation_words=curve.ablation_words or {},
        search=sweep.search,
        paper=sweep.paper,
        facts=list(_facts(sources)),
        machines=list(_machines(sources)),
        reused=[member for member in sweep.experiments if member.reused],
        failed=[member for member in sweep.experiments if member.error and member.state == "failed"],
        command=_command(sweep.spec),
        entries=bibliography.cited(sweep.spec),
        regimes=REGIMES,
        reasons=REASONS,
        pixels=ERRORS,
    )  # fmt: skip


def shown(curve: Curve) -> list[tuple[str, Point]]:
    """The points whose view pairs a report shows: where the first task is done best, and both ends, in the order of the axis.

    Where the axis has no order its ends are the least and the most that the views share.
    """
    ordered = curve.axis.ordered
    measured = [point for point in curve.points if point.i_nce is not None]
    along = sorted(measured, key=lambda point: point.value if ordered else point.i_nce)  # type: ignore[arg-type,return-value]
    if not along:
        return []
    places = {0: "the lower end" if ordered else "least shared", len(along) - 1: "the upper end" if ordered else "most shared"}
    if (best := _best(curve)) is not None:
        spot = next(iter(curve.verdicts.values())).sweet_spot
        index = next(index for index, point in enumerate(along) if point is best)
        places[index] = "the sweet spot" if spot else "the best so far"
    return [(places[index], along[index]) for index in sorted(places)]


def _best(curve: Curve) -> Point | None:
    """By the first task, of the points whose information is known."""
    for name, verdict in curve.verdicts.items():
        done = [point for point in curve.points if name in point.tasks and point.i_nce is not None]
        spots = [point for point in done if verdict.sweet_spot and point.value == verdict.sweet_spot.value]
        sign = -1 if verdict.metric in ERRORS else 1
        return spots[0] if spots else max(done, key=lambda point: sign * point.tasks[name].value, default=None)
    return None


# In words -------------------------------------------------------------------------------------------------------------


def _name(path: str) -> str:
    last = path.rpartition(".")[2]
    return NAMES.get(last, last.replace("_", " "))


def _question(spec: SweepSpec, dataset: str, tasks: Sequence[str]) -> str:
    axis, base = spec.axis, spec.base
    judged = " and ".join(tasks) or " and ".join(str(task.name or task.kind) for task in base.tasks)
    part, _, rest = axis.path.partition(".")
    of = {"views": f"of {base.views.kind} views", "method": f"of {base.method.kind}", "encoder": f"of {base.encoder.kind}"}
    which = (
        f"{_name(axis.path)} {of.get(part, f'of {part}')}"
        if rest
        else {"views": "view recipe", WHOLE: "experiment"}.get(part, part)
    )
    if axis.ablate:
        return f"What is each operation of {base.views.kind} worth for {judged or 'what the views share'} on {dataset}?"
    if not judged:
        return f"How much do the views of {dataset} share, by {which}?"
    return f"Which {which} is best for {judged} on {dataset}?"


def _answers(curve: Curve) -> list[tuple[str, str]]:
    """The verdict on each task in the words of the curve, after the task's name where there are several."""
    if not curve.verdicts:
        return [("", figure.without_verdict(curve))]
    return [(name if len(curve.verdicts) > 1 else "", verdict.words) for name, verdict in curve.verdicts.items()]


def _notice(sweep: schemas.Sweep) -> str:
    """What is not there yet, or never will be."""
    counts = sweep.counts
    ended = counts.succeeded + counts.failed + counts.cancelled
    if ended < counts.total:
        return (
            f"The sweep is still {sweep.state}: {ended} of {counts.total} trainings have ended, and this is what they say so far."
        )
    missing = [f"{number} {state}" for state, number in (("failed", counts.failed), ("cancelled", counts.cancelled)) if number]
    return f"Of {counts.total} trainings {' and '.join(missing)}: they are missing here." if missing else ""


def _preset(spec: SweepSpec) -> str:
    """What question the preset answers that the sweep is one of, if it is."""
    name = (spec.preset or "").partition("/")[0]
    return PRESETS[name].description if name in PRESETS else ""


def _facts(sources: Sources) -> Iterator[tuple[str, str]]:
    """How it was measured, in terms of a training that ended, or else of the base."""
    spec = sources.sweep.spec
    example = next(iter(sources.results), None)
    trained = ExperimentSpec.model_validate(sources.specs[example]) if example else spec.base  # fields in their order again
    parts = trained.model_dump(mode="json")
    data = (sources.results[example].get("data") or {}) if example else {}
    size = f", seen at {parts['dataset']['image_size']} px" if parts["dataset"].get("image_size") else ""
    items = f"; {data['train']} items for training, {data['test']} held out" if {"train", "test"} <= data.keys() else ""
    digest = f"; SHA-256 {data['digest']}" if data.get("digest") else ""
    yield "dataset", f"{sources.dataset}{size}{items}{digest}"
    for part in ("views", "method", "encoder", "pretrain"):
        yield part, _part_in_words(parts[part], spec, part)
    yield "information", f"I_NCE on held-out items, K = {parts['mi']['k']} candidates; in nats, and at most log K"
    for task in parts["tasks"]:
        yield f"task {task.get('name') or task['kind']}", _part_in_words(task, spec, "tasks")
    seeds = sorted({member.seed for member in sources.sweep.experiments})
    yield "seeds", ", ".join(map(str, seeds))


def _part_in_words(part: Mapping[str, Any], spec: SweepSpec, name: str) -> str:
    """Its kind and what was chosen of it; what varies along the axis is named as such."""
    if spec.axis.path in (name, WHOLE) and (spec.axis.path == name or any(name in value for value in _values(spec))):
        return "varies along the axis"
    varied = spec.axis.path.split(".")[1] if spec.axis.path.startswith(f"{name}.") else None
    kept = {
        key: value for key, value in part.items() if value is not None and value != [] and key not in ("name", "kind", varied)
    }
    kind = {"kind": part["kind"]} if "kind" in part else {}
    told = in_words(kind | {key.replace("_", " "): value for key, value in kept.items()})
    return f"{told}, {varied.replace('_', ' ')} along the axis" if varied and not varied.isdigit() else told


def _values(spec: SweepSpec) -> list[dict[str, Any]]:
    return [value for value in spec.axis.values if isinstance(value, dict)]


def _machines(sources: Sources) -> Iterator[tuple[str, str]]:
    """What the trainings ran on, with what code, and how many of them."""
    found: Counter[tuple[str, str]] = Counter()
    for results in sources.results.values():
        machine = results.get("hardware") or {}
        versions = {"sweetspot": results.get("code", CODE_VERSION), **machine.get("versions", {})}
        threads = machine.get("threads")
        parts = [machine.get("device"), machine.get("cpu"), f"{threads} thread{'s' * (threads != 1)}" if threads else None]
        found[", ".join(filter(None, parts)), ", ".join(f"{name} {version}" for name, version in versions.items())] += 1
    for (machine, versions), count in found.most_common():
        yield f"{count} training{'s' * (count != 1)}", f"{machine}; {versions}" if machine else versions


def _command(spec: SweepSpec) -> str:
    whole = spec.model_dump(mode="json", exclude={"base"}) | {"base": spec.base.model_dump(mode="json", exclude_none=True)}
    document = _with_short_lists(json.dumps(whole, indent=2, ensure_ascii=False))
    return f"sweetspot sweep - --wait <<'SWEEP'\n{document}\nSWEEP"


def _with_short_lists(document: str) -> str:
    """Lists of plain things on one line each; within strings there are no lines to be joined."""
    listed = re.compile(r"\[\n *([^\[\]{}\n]+(?:\n *[^\[\]{}\n]+)*)\n *\]")
    return listed.sub(lambda found: "[" + re.sub(r" *\n *", " ", found[1]) + "]", document)


# On the page ----------------------------------------------------------------------------------------------------------


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("app"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"digits": _digits, "nats": _nats, "score": _score, "between": _between, "p": _p, "words": in_words}
    return made


def _inline(specification: figure.Specification, prefix: str) -> Markup:
    """A figure as SVG within the page, with ids of its own; its size is the page's to choose."""
    svg = figure.render(specification, "svg").decode()
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    return Markup(svg)  # nosec B704 # drawn by us, and what it says of others was escaped with it


def _digits(value: float | None) -> str:
    """As the curve's JSON has it."""
    return "" if value is None else to_json(value).decode()


def _nats(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")  # no -0.00


def _score(value: float, metric: str = "accuracy") -> str:
    return f"{value:.2f} px" if metric in ERRORS else f"{value:.3f}"


def _between(interval: Interval | None, places: int = 2) -> str:
    if interval is None:
        return ""
    low, high = (f"{round(end, places) + 0.0:.{places}f}".replace("-", "−") for end in interval)
    return f"{low} to {high}"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1g}" if value < 0.001 else f"{value:.3f}"
