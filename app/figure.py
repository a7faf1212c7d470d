"""A curve as a picture: drawn once, as a Vega-Lite specification, and rendered from it to SVG, PNG and PDF.

Altair and vl-convert are imported where they are used: they take longer to load than the rest of the API.
"""

import base64
import csv
import io
import json
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic_core import to_json

from ml.curve import ERRORS, QUALITIES, Curve, Interval, Point, SweetSpot

Format = Literal["svg", "png", "pdf", "vl.json"]
Specification = dict[str, Any]
Row = dict[str, Any]

WIDTH, HEIGHT = 620, 380  # of the plotting area in pixels
STACKED_HEIGHT = 280  # of each, where there are several
MOST_LABELS = 30  # of more points, every second or third is labelled
MOST_NUMBERS = 15  # likewise, where the labels are nats
INFORMATION = "Mutual information of the views, I_NCE (nats)"
FONT = "Liberation Sans, Helvetica, Arial, sans-serif"
INK, QUIET, FAINT = "#222222", "#666666", "#e6e6e6"
# Okabe and Ito 2008, told apart by colour-blind readers; orange is kept for the sweet spot
COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#000000")
SPOT = "#d55e00"
PARTS = {"about the label": "#0072b2", "nuisance": "#c9c2b4"}
SHADES = {"missing information": "#a9c7e0", "sweet spot": "#f7b27f", "excess noise": "#b9b2a6"}


def figure(curve: Curve, title: str, task: str | None = None) -> Specification:
    """I_NCE against how well tasks are done, as a Vega-Lite specification: one task, or all of them in a colour each.

    Tasks of one metric share a plot, and plots of several stand under each other; up is better in each, so errors run downwards.
    Every task's sweet spot is marked. The regimes shaded in a plot are those of its first task. Without any tasks, I_NCE is
    drawn over the axis of the sweep. Raises KeyError where the curve has tasks and `task` is none of them.
    """
    import altair as alt  # noqa: PLC0415

    if task is not None and curve.verdicts and task not in curve.verdicts:
        raise KeyError(f"no task {task!r} on this curve; it has {', '.join(curve.verdicts)}")
    tasks = [name for name in curve.verdicts if task in (None, name)]
    plots = _plots(curve, tasks)
    charts = [alt.layer(*_layers(plot, curve)).properties(width=WIDTH, height=plot.height) for plot in plots]
    chart = (
        charts[0]
        if len(charts) == 1
        else alt.vconcat(*charts, spacing=30).resolve_scale(color="independent", stroke="independent")
    )
    shaded = curve.verdicts.get(plots[0].tasks[0]) if plots[0].tasks else None
    return _styled(
        chart.properties(
            title=alt.TitleParams(
                title or ("Mutual information against accuracy" if curve.verdicts else "Mutual information of the views"),
                subtitle=list(_words(curve, tasks)),
                offset=26 if shaded and shaded.sweet_spot else 14,
            )
        )
    )


def information(curve: Curve, title: str) -> Specification:
    """What the views share, split: the part about the label and the nuisance as stacked bars in nats, with I_NCE marked.

    The parts are estimates, and one of them may come out below 0: it then hangs below the line, and not off the top of the other.
    Points that were not split have their I_NCE alone.
    """
    import altair as alt  # noqa: PLC0415

    points, plane = _over_the_axis(curve)
    bars = [bar for place, point in enumerate(points) for bar in _parts(point, place, _symbol(curve))]
    dots = list(_marked(points))
    ends = [0.0, *(end for bar in bars for end in (bar["y"], bar["y2"]))]
    low, high = min(*plane.y, 1.1 * min(ends)), max(*plane.y, 1.05 * max(ends))
    plane = replace(plane, y=(low, high), height=STACKED_HEIGHT, y_title="Nats")
    layers = [
        _chart([{"x": plane.x[0], "x2": plane.x[1], "y": 0}]).mark_rule(color=QUIET).encode(**plane.axes("x", "y"), x2="x2:Q")
    ]
    if bars:
        colour = alt.Color("part:N", scale=alt.Scale(domain=list(PARTS), range=list(PARTS.values())))
        wide = max(min(WIDTH / len(points) * 0.62, 56), 1)
        bar = (
            _chart(bars)
            .mark_bar(size=wide, opacity=1)
            .encode(**plane.axes("x", "y"), y2="y2:Q", color=colour, description="said:N")
        )
        layers.append(bar)
    layers += _ceiling(plane, curve)
    marked = _Plot(tasks=[], colours={"": INK}, named=False, dots=dots, plane=plane, last=True)
    layers += _marks(marked, _symbol(curve))
    if not dots:
        layers.append(_text(plane, [(sum(plane.x) / 2, sum(plane.y) / 2, "no measurements yet")], fontSize=14, color=QUIET))
    says = alt.TitleParams(title or "What the views share", subtitle=list(_parts_in_words(points, bars)), offset=14)
    chart = alt.layer(*layers).resolve_scale(color="independent", stroke="independent")
    return _styled(chart.properties(width=WIDTH, height=plane.height, title=says))


def views_picture(rows: Sequence[tuple[str, bytes]]) -> Specification:
    """Pictures of view pairs under each other, each beside its caption: (caption, PNG) a row."""
    import altair as alt  # noqa: PLC0415

    gap, side = 14, 600
    column = max((_text_width(caption, 13) for caption, _ in rows), default=0) + 20
    pictures, captions, top = [], [], 0.0
    for caption, png in rows:
        width, height = _png_size(png)
        tall = side * height / width
        url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        picture = alt.Chart(alt.Data(values=[{"url": url, "x": column, "y": top}]))
        pictures.append(
            picture.mark_image(width=side, height=tall, align="left", baseline="top").encode(
                x=alt.X("x:Q", scale=None, axis=None), y=alt.Y("y:Q", scale=None, axis=None), url="url:N"
            )
        )
        captions.append({"caption": caption, "x": 0, "y": top + tall / 2})
        top += tall + gap
    words = (
        alt.Chart(alt.Data(values=captions))
        .mark_text(align="left", baseline="middle", fontSize=13, color=INK)
        .encode(x=alt.X("x:Q", scale=None, axis=None), y=alt.Y("y:Q", scale=None, axis=None), text="caption:N")
    )
    return _styled(alt.layer(*pictures, words).properties(width=column + side, height=max(top - gap, 1)))


def render(specification: Specification, form: Format) -> bytes:
    """The picture of a specification, or the specification itself as `vl.json`. PNG has two pixels for each of its units."""
    import vl_convert  # noqa: PLC0415

    if form == "vl.json":
        return json.dumps(specification, ensure_ascii=False).encode()
    specification = _drawable(specification)
    if form == "svg":
        return vl_convert.vegalite_to_svg(specification).encode()
    if form == "png":
        return vl_convert.vegalite_to_png(specification, scale=2)
    return vl_convert.vegalite_to_pdf(specification)


NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _drawable(part: Any) -> Any:
    """A specification without characters that an SVG cannot hold: vl-convert would end the process over one."""
    if isinstance(part, str):
        return NO_XML.sub("\ufffd", part)
    if isinstance(part, dict):
        return {_drawable(name): _drawable(value) for name, value in part.items()}
    return [_drawable(item) for item in part] if isinstance(part, list | tuple) else part


def without_verdict(curve: Curve) -> str:
    """What is said in the place of a verdict where there is none."""
    measured = any(point.i_nce is not None for point in curve.points)
    return "there is no task, and so no sweet spot: this is only how much the views share" if measured else "no verdict yet"


def to_csv(curve: Curve) -> str:
    """One row a point, five columns a task and four more of an ablation; the numbers are those of the JSON, digit for digit."""
    head, rows = table(curve)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    return out.getvalue()


def table(curve: Curve) -> tuple[list[str], list[list[Any]]]:
    """The names of the columns, and a row for each point; None where nothing is known."""
    head = [
        "value",
        "label",
        "i_nce",
        "i_nce_low",
        "i_nce_high",
        "log_k",
        "saturated",
        "low",
        "task_information",
        "nuisance",
        *QUALITIES,
        "regime",
    ]
    for name in curve.verdicts:
        head += [name, f"{name}_low", f"{name}_high", f"{name}_seeds", f"{name}_metric"]
    costs = {name: {one.label: one for one in found} for name, found in (curve.ablation or {}).items()}
    for name in costs:  # what leaving an operation out costs the task
        head += [f"{name}_cost", f"{name}_cost_low", f"{name}_cost_high", f"{name}_cost_p"]
    rows = []
    for point in curve.points:
        cells: list[Any] = [point.value, point.label, point.i_nce, *(point.i_nce_ci or (None, None)), point.log_k]
        cells += [point.saturated, point.low, point.task_information, point.nuisance]
        cells += [*(point.quality.get(name) for name in QUALITIES), point.regime]
        for name in curve.verdicts:
            result = point.tasks.get(name)
            cells += [result.value, *(result.ci or (None, None)), result.seeds, result.metric] if result else [None] * 5
        for found in costs.values():
            one = found.get(point.label)
            cells += [one.cost.value, *(one.cost.ci or (None, None)), one.p] if one else [None] * 4
        rows.append([*cells, " ".join(point.experiments)])
    return [*head, "experiments"], rows


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else to_json(value).decode()


def _styled(chart: Any) -> Specification:
    styled = (
        chart.configure(font=FONT, background="white", padding=16)
        .configure_view(stroke=None)
        .configure_title(
            anchor="start", frame="group", fontSize=17, fontWeight=600, color=INK, subtitleFontSize=13, subtitleColor=QUIET,
            subtitlePadding=5,
        )
        .configure_axis(
            labelFontSize=12, titleFontSize=13, titleFontWeight="normal", titleColor=INK, labelColor=INK, titlePadding=10,
            gridColor=FAINT, gridWidth=0.7, domainColor="#888888", tickColor="#888888", tickSize=4,
        )
        .configure_legend(labelFontSize=12, title=None, orient="bottom", symbolSize=70, offset=6)
    )  # fmt: skip
    specification: Specification = styled.to_dict()
    return specification


# What is drawn, and where ---------------------------------------------------------------------------------------------


class _Dot(NamedTuple):
    """A point's place in a plot, with its intervals from left to right and upwards."""

    point: Point
    task: str
    x: float
    y: float
    across: Interval | None
    up: Interval | None


@dataclass(frozen=True)
class _Plane:
    """The ranges of both axes: I_NCE in nats from left to right, and the tasks' values from bottom to top, so errors descend.

    Without tasks I_NCE runs upwards, and `names` are those of the places 0, 1, ... from left to right.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    height: int
    x_title: str
    y_title: str
    names: tuple[str, ...] = ()

    def to_pixels(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return across * WIDTH, (1 - up) * self.height

    def from_pixels(self, across: float, down: float) -> tuple[float, float]:
        x = self.x[0] + across / WIDTH * (self.x[1] - self.x[0])
        y = self.y[0] + (1 - down / self.height) * (self.y[1] - self.y[0])
        return x, y

    def clipped(self, y: float) -> float:
        return min(max(y, min(self.y)), max(self.y))

    def bar(self, dot: _Dot) -> tuple[float, float]:
        """Top and bottom in pixels of the interval of a dot, or of the dot itself."""
        top, bottom = sorted(self.to_pixels(0, self.clipped(end))[1] for end in dot.up or (dot.y, dot.y))
        return top, bottom

    def axes(self, x: str, y: str) -> dict[str, Any]:
        """The two position channels, reading these fields."""
        import altair as alt  # noqa: PLC0415

        across, up = alt.Scale(domain=list(self.x), nice=False), alt.Scale(domain=list(self.y), nice=False)
        return {
            "x": alt.X(f"{x}:Q", scale=across, title=self.x_title, axis=_ticks(self.names)),
            "y": alt.Y(f"{y}:Q", scale=up, title=self.y_title, axis=alt.Axis(tickCount=6)),
        }


@dataclass(frozen=True)
class _Plot:
    """Tasks of one metric over I_NCE, or without tasks I_NCE itself.

    `colours` are those of its tasks, `named` says whether a legend tells which is which.
    """

    tasks: list[str]
    colours: dict[str, str]
    named: bool
    dots: list[_Dot]
    plane: _Plane
    last: bool

    @property
    def height(self) -> int:
        return self.plane.height


def _plots(curve: Curve, tasks: Sequence[str]) -> list[_Plot]:
    """One for each metric, and for each five tasks of a metric, since there are five colours."""
    if not tasks:
        return [_information(curve)]
    metrics = dict.fromkeys(curve.verdicts[task].metric for task in tasks)
    alike = [[task for task in tasks if curve.verdicts[task].metric == metric] for metric in metrics]
    groups = [group[start : start + len(COLOURS)] for group in alike for start in range(0, len(group), len(COLOURS))]
    colours = dict(zip([task for group in groups for task in group], cycle(COLOURS), strict=False))
    plots = []
    for index, group in enumerate(groups):
        dots = list(_dots(curve, group))
        errs = curve.verdicts[group[0]].metric in ERRORS
        plots.append(
            _Plot(
                tasks=group,
                colours={task: colours[task] for task in group},
                named=len(tasks) > 1,
                dots=dots,
                plane=_plane(dots, curve, errs, HEIGHT if len(groups) == 1 else STACKED_HEIGHT),
                last=index == len(groups) - 1,
            )
        )
    return plots


def _information(curve: Curve) -> _Plot:
    """I_NCE over the axis of the sweep."""
    points, plane = _over_the_axis(curve)
    return _Plot(tasks=[], colours={"": COLOURS[0]}, named=False, dots=list(_marked(points)), plane=plane, last=True)


def _marked(points: Sequence[Point]) -> Iterator[_Dot]:
    for place, point in enumerate(points):
        if point.i_nce is not None:
            yield _Dot(point, "", place, point.i_nce, None, point.i_nce_ci)


def _over_the_axis(curve: Curve) -> tuple[Sequence[Point], _Plane]:
    """The points side by side in their order, and where they stand: nats over the places 0, 1, ... that their labels name."""
    points = sorted(curve.points, key=lambda point: point.value) if curve.axis.ordered else curve.points  # type: ignore[arg-type,return-value]
    names = tuple(point.label for point in points)
    return points, _Plane((-0.5, max(len(names), 1) - 0.5), _nats(curve), HEIGHT, _symbol(curve), INFORMATION, names)


def _parts(point: Point, place: int, symbol: str) -> Iterator[Row]:
    """The two bars of a point. What is above 0 stands on what else is above 0, what is below hangs below what else is."""
    if point.task_information is None or point.nuisance is None:
        return
    ends = {True: 0.0, False: 0.0}
    for part, nats in zip(PARTS, (point.task_information, point.nuisance), strict=True):
        start = ends[nats >= 0]
        ends[nats >= 0] = start + nats
        named = f"{symbol} {point.label}" if isinstance(point.value, int | float) else point.label
        yield {
            "x": place,
            "y": start,
            "y2": start + nats,
            "part": part,
            "nats": nats,
            "said": f"{named}: {part} {_cell(nats)} nats",
        }


def _parts_in_words(points: Sequence[Point], bars: Sequence[Row]) -> Iterator[str]:
    if not bars:
        measured = any(point.i_nce is not None for point in points)
        yield "not split: the items have no classes by which it could be" if measured else "no measurements yet"
        return
    saturated = " · ○ saturated: at least" if any(point.saturated for point in points) else ""
    yield f"bars: the parts about the label and not about it · dots: I_NCE with its 95 % interval{saturated}"
    if any(bar["nats"] < 0 for bar in bars):
        yield "a part below 0 is the error of an estimate: no information is negative"


def _layers(plot: _Plot, curve: Curve) -> list[Any]:
    plane, dots = plot.plane, plot.dots
    spots = {task: spot for task in plot.tasks if (spot := curve.verdicts[task].sweet_spot)}
    layers = [
        *_regimes(plot, spots, curve.axis.along_information),
        *_ceiling(plane, curve),
        *_drops(plot, spots),
        *_path(plot, joined=curve.axis.ordered),
        *_marks(plot, _symbol(curve)),
        *_sweet_spots(plot, spots, _symbol(curve)),
        *_labels(plot, spots, _symbol(curve)),
    ]
    if not dots:
        layers.append(_text(plane, [(sum(plane.x) / 2, sum(plane.y) / 2, "no measurements yet")], fontSize=14, color=QUIET))
    return layers


def _words(curve: Curve, tasks: Sequence[str]) -> Iterator[str]:
    """The verdicts in lines, each after its task where there are several."""
    if not curve.verdicts:
        yield without_verdict(curve)
    for task in tasks if curve.verdicts else ():
        words = curve.verdicts[task].words.replace(f" {curve.axis.name} ", f" {_symbol(curve)} ")
        yield from textwrap.wrap(f"{task}: {words}" if len(tasks) > 1 else words, 100)


def _dots(curve: Curve, tasks: Sequence[str]) -> Iterator[_Dot]:
    for task in tasks:
        dots = [
            _Dot(point, task, point.i_nce, point.tasks[task].value, point.i_nce_ci, point.tasks[task].ci)
            for point in curve.points
            if point.i_nce is not None and task in point.tasks
        ]
        yield from sorted(dots, key=lambda dot: dot.point.value) if curve.axis.ordered else dots  # type: ignore[arg-type,return-value]


def _nats(curve: Curve) -> tuple[float, float]:
    """The range of I_NCE, from zero to its ceiling at least."""
    ceilings = [point.log_k for point in curve.points if point.log_k is not None]
    informations = [point.i_nce for point in curve.points if point.i_nce is not None]
    most = max([*ceilings, *informations], default=1.0)
    least = min([0.0, *informations])
    margin = 0.03 * (most - least)
    return least - margin, most + 2 * margin


def _plane(dots: Sequence[_Dot], curve: Curve, errs: bool, height: int) -> _Plane:
    title = "Localization error (px), less is better" if errs else "Accuracy on held-out items"
    if not dots:
        return _Plane(_nats(curve), (0.0, 1.0), height, INFORMATION, title)
    least, most = min(dot.y for dot in dots), max(dot.y for dot in dots)
    span = max(most - least, 0.12 * max(abs(most), 1e-9))
    ends = [end for dot in dots for end in dot.up or (dot.y, dot.y)]
    # an interval of two seeds may be far wider than the curve is high: it is cut, for it would flatten the curve
    above, below = (0.12, 0.16) if errs else (0.16, 0.12)
    low = max(min(ends), least - 0.6 * span) - below * span
    high = min(max(ends), most + 0.6 * span) + above * span
    if least >= 0 and (errs or most <= 1):
        low, high = max(low, 0.0), high if errs else min(high, 1.0)
    return _Plane(_nats(curve), (high, low) if errs else (low, high), height, INFORMATION, title)


def _symbol(curve: Curve) -> str:
    return "σ" if curve.axis.name == "sigma" else curve.axis.name.replace("_", " ")


def _ticks(names: Sequence[str]) -> Any:
    """The ticks of I_NCE; or these names, of which long ones are slanted."""
    import altair as alt  # noqa: PLC0415

    if not names:
        return alt.Axis(tickCount=8)
    step = math.ceil(len(names) / MOST_LABELS)
    slanted = max(_text_width(name, 12) for name in names[::step]) + 10 > step * WIDTH / len(names)
    style = {"labelAngle": -35, "labelAlign": "right"} if slanted else {"labelAngle": 0}
    return alt.Axis(
        values=[*range(0, len(names), step)],
        labelExpr=f"{json.dumps(names)}[datum.value]",
        labelLimit=220,
        labelOverlap=False,
        grid=False,
        **style,
    )


def _chart(rows: Sequence[dict[str, Any]]) -> Any:
    import altair as alt  # noqa: PLC0415

    return alt.Chart(alt.Data(values=list(rows)))


def _text(plane: _Plane, places: Sequence[tuple[float, float, str]], **style: Any) -> Any:
    rows = [{"x": x, "y": y, "text": text} for x, y, text in places]
    style = {"align": "center", "baseline": "middle", "fontSize": 12, "color": INK, **style}
    return _chart(rows).mark_text(**style).encode(**plane.axes("x", "y"), text="text:N")


def _regimes(plot: _Plot, spots: dict[str, SweetSpot], along_information: bool) -> Iterator[Any]:
    """The interval of the first task's sweet spot, with less information to its left and more to its right."""
    spot = spots.get(plot.tasks[0]) if plot.tasks else None
    if spot is None:
        return
    plane = plot.plane
    low, high = spot.i_nce_ci
    bands = {"sweet spot": (max(low, plane.x[0]), min(high, plane.x[1]))}
    if along_information:
        bands = {"missing information": (plane.x[0], low), **bands, "excess noise": (high, plane.x[1])}
    for name, (left, right) in bands.items():
        band = _chart([{"x": left, "x2": right, "y": plane.y[0], "y2": plane.y[1]}])
        yield band.mark_rect(opacity=0.22, color=SHADES[name]).encode(**plane.axes("x", "y"), x2="x2:Q", y2="y2:Q")
    of = f" of {plot.tasks[0]}" if len(plot.tasks) > 1 else ""
    for name, x in _band_titles(plane, bands, of):
        style = {"color": SPOT, "fontWeight": "bold"} if name == f"sweet spot{of}" else {"color": QUIET}
        yield _text(plane, [(x, plane.y[1], name)], baseline="bottom", dy=-6, **style)


def _band_titles(plane: _Plane, bands: dict[str, tuple[float, float]], of: str) -> Iterator[tuple[str, float]]:
    """Names over the plot with where they are centred: moved aside for `sweet spot`, left out where there is no room."""
    spot = f"sweet spot{of}"
    half = _text_width(spot, 12) / 2 + 8
    left, right = (plane.to_pixels(end, plane.y[0])[0] for end in bands["sweet spot"])
    middle = min(max((left + right) / 2, half), WIDTH - half)
    rooms = {
        "missing information": (0, min(left, middle - half)),
        spot: (middle - half, middle + half),
        "excess noise": (max(right, middle + half), WIDTH),
    }
    for name in (spot if name == "sweet spot" else name for name in bands):
        start, end = rooms[name]
        if end - start >= _text_width(name, 12):
            yield name, plane.from_pixels((start + end) / 2, 0)[0]


def _ceiling(plane: _Plane, curve: Curve) -> Iterator[Any]:
    ceilings = sorted({point.log_k for point in curve.points if point.log_k is not None})
    if not ceilings:
        return
    style = {"strokeDash": [5, 4], "color": QUIET, "strokeWidth": 1.2}
    if plane.names:
        rows = [{"x": plane.x[0], "x2": plane.x[1], "y": log_k} for log_k in ceilings]
        yield _chart(rows).mark_rule(**style).encode(**plane.axes("x", "y"), x2="x2:Q")
        names = [(plane.x[1], log_k, f"log K = {log_k:.2f}") for log_k in ceilings]
        yield _text(plane, names, align="right", baseline="bottom", dy=-4, color=QUIET)
        return
    rows = [{"x": log_k, "y": plane.y[0], "y2": plane.y[1]} for log_k in ceilings]
    yield _chart(rows).mark_rule(**style).encode(**plane.axes("x", "y"), y2="y2:Q")
    names = [(log_k, plane.y[0], f"log K = {log_k:.2f}") for log_k in ceilings]
    yield _text(plane, names, angle=270, align="left", baseline="top", dx=8, dy=5, color=QUIET)


def _drops(plot: _Plot, spots: dict[str, SweetSpot]) -> Iterator[Any]:
    """From every sweet spot down to the axis, where there are several to be compared."""
    if not plot.named:
        return
    for task, spot in spots.items():
        drop = _chart([{"x": spot.i_nce, "y": spot.accuracy, "y2": plot.plane.y[0]}])
        style = {"strokeDash": [2, 3], "strokeWidth": 1.5, "color": plot.colours[task]}
        yield drop.mark_rule(**style).encode(**plot.plane.axes("x", "y"), y2="y2:Q")


def _path(plot: _Plot, joined: bool) -> Iterator[Any]:
    import altair as alt  # noqa: PLC0415

    if not joined or len(plot.dots) < 2:
        return
    rows = [{"x": dot.x, "y": dot.y, "task": dot.task, "order": order} for order, dot in enumerate(plot.dots)]
    yield (
        _chart(rows)
        .mark_line(strokeWidth=1.6, opacity=0.55)
        .encode(**plot.plane.axes("x", "y"), order=alt.Order("order:Q"), color=_colour(plot))
    )


def _colour(plot: _Plot) -> Any:
    import altair as alt  # noqa: PLC0415

    scale = alt.Scale(domain=list(plot.colours), range=list(plot.colours.values()))
    return alt.Color("task:N", scale=scale, legend=alt.Legend(symbolOpacity=1) if plot.named else None)


def _marks(plot: _Plot, symbol: str) -> Iterator[Any]:
    """Intervals as thin bars and a dot at each point, hollow where I_NCE is saturated, with its numbers as the SVG's text."""
    if not plot.dots:
        return
    plane, colour = plot.plane, _colour(plot)
    up: list[Row] = []
    across: list[Row] = []
    full: list[Row] = []
    hollow: list[Row] = []
    for dot in plot.dots:
        row = {"x": dot.x, "y": dot.y, "task": dot.task, "label": dot.point.label, "said": _said(dot.point, dot.task, symbol)}
        (hollow if dot.point.saturated else full).append(row)
        if dot.up:
            up.append({"x": dot.x, "y": plane.clipped(dot.up[0]), "y2": plane.clipped(dot.up[1]), "task": dot.task})
        if dot.across:
            ends = [min(max(end, plane.x[0]), plane.x[1]) for end in dot.across]
            across.append({"x": ends[0], "x2": ends[1], "y": dot.y, "task": dot.task})
    axes = plane.axes("x", "y")
    if up:
        yield _chart(up).mark_rule(strokeWidth=1.3, opacity=0.8).encode(**axes, y2="y2:Q", color=colour)
    if across:
        yield _chart(across).mark_rule(strokeWidth=1.3, opacity=0.8).encode(**axes, x2="x2:Q", color=colour)
    if full:
        yield _chart(full).mark_point(filled=True, size=62, opacity=1).encode(**axes, color=colour, description="said:N")
    if hollow:
        style = {"filled": True, "fill": "white", "size": 62, "strokeWidth": 1.8, "opacity": 1}
        yield _chart(hollow).mark_point(**style).encode(**axes, stroke=_stroke(plot), description="said:N")


def _said(point: Point, task: str, symbol: str) -> str:
    """The numbers of a point as the curve's JSON has them, digit for digit: what the SVG says where the picture shows a mark."""
    least = "at least " if point.saturated else ""
    said = [f"I_NCE {least}{_with_interval(point.i_nce, point.i_nce_ci)} nats, log K {_cell(point.log_k)}"]
    if task:
        result = point.tasks[task]
        unit = " px" if result.metric in ERRORS else ""
        seeds = f"{result.seeds} seed{'s' * (result.seeds != 1)}"
        said.append(f"{task} {_with_interval(result.value, result.ci)}{unit}, {seeds}")
    if point.task_information is not None:
        said.append(f"about the label {_cell(point.task_information)} nats, nuisance {_cell(point.nuisance)} nats")
    named = f"{symbol} {point.label}" if isinstance(point.value, int | float) else point.label
    return f"{named}: {'; '.join(said)}"


def _with_interval(value: float | None, interval: Interval | None) -> str:
    return _cell(value) + (f" ({_cell(interval[0])} to {_cell(interval[1])})" if interval else "")


def _stroke(plot: _Plot) -> Any:
    import altair as alt  # noqa: PLC0415

    scale = alt.Scale(domain=list(plot.colours), range=list(plot.colours.values()))
    return alt.Stroke("task:N", scale=scale, legend=None)


def _sweet_spots(plot: _Plot, spots: dict[str, SweetSpot], symbol: str) -> Iterator[Any]:
    """Large dots, in a rim of their task's colour where there are several."""
    for task, spot in spots.items():
        between = f" ({_cell(spot.value_ci[0])} to {_cell(spot.value_ci[1])})" if spot.value_ci else ""
        said = f"sweet spot of {task}: {symbol} {spot.label}{between}, I_NCE {_with_interval(spot.i_nce, spot.i_nce_ci)} nats"
        mark = _chart([{"x": spot.i_nce, "y": spot.accuracy, "said": f"{said}, {task} {_cell(spot.accuracy)}"}])
        rim = {"stroke": plot.colours[task], "strokeWidth": 2.5} if plot.named else {"stroke": "white", "strokeWidth": 1.5}
        large = mark.mark_point(filled=True, size=170, color=SPOT, opacity=1, **rim)
        yield large.encode(**plot.plane.axes("x", "y"), description="said:N")


# Labels that do not lie on each other ---------------------------------------------------------------------------------


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float


def _labels(plot: _Plot, spots: dict[str, SweetSpot], symbol: str) -> Iterator[Any]:
    """The value on the axis beside each point of the first task and each sweet spot, where it covers least of the rest.

    Where the axis itself is drawn, it names the values, and I_NCE stands beside the points.
    """
    if not plot.dots:
        return
    named = [dot for dot in plot.dots if dot.task == plot.dots[0].task]
    chief = [dot for dot in plot.dots if dot.task in spots and dot.point.value == spots[dot.task].value]
    most = MOST_NUMBERS if plot.plane.names else MOST_LABELS
    others = [dot for dot in named[:: math.ceil(len(named) / most)] if dot not in chief]
    taken = _obstacles(plot, [spots[dot.task] for dot in chief if plot.named])
    bold, light = [], []
    for dot in [*chief, *others]:
        if plot.plane.names:
            text = f"≥ {dot.y:.2f}" if dot.point.saturated else f"{round(dot.y, 2) + 0.0:.2f}" + "*" * dot.point.low  # no -0.00
        else:
            text = f"{dot.point.label} (≥ {dot.x:.2f} nats)" if dot.point.saturated else dot.point.label + "*" * dot.point.low
            if (dot in chief or (not chief and dot is others[0])) and isinstance(dot.point.value, int | float):
                text = f"{symbol} = {text}"
        box = _freest(_beside(plot.plane, dot, text), taken)
        taken.append(box)
        place = (*plot.plane.from_pixels((box.left + box.right) / 2, (box.top + box.bottom) / 2), text)
        (bold if dot in chief else light).append(place)
    if bold:
        yield _text(plot.plane, bold, fontWeight="bold")
    if light:
        yield _text(plot.plane, light)
    if plot.last:
        yield from _notes(plot)


def _notes(plot: _Plot) -> Iterator[Any]:
    """What the marks of unreliable points mean, beneath the axis; above the plot where names may need the room."""
    notes = ["○ saturated: at least"] if any(dot.point.saturated for dot in plot.dots) else []
    notes += ["* probably low by more than 5 %"] if any(dot.point.low and not dot.point.saturated for dot in plot.dots) else []
    if notes and plot.plane.names:
        place = (plot.plane.x[1], plot.plane.y[1], " · ".join(notes))
        yield _text(plot.plane, [place], align="right", baseline="bottom", dy=-6, color=QUIET)
        return
    for line, note in enumerate(notes):
        place = (*plot.plane.from_pixels(WIDTH, plot.height + 39 + 15 * line), note)
        yield _text(plot.plane, [place], align="right", color=QUIET)


def _freest(places: Iterable[tuple[float, _Box]], taken: Sequence[_Box]) -> _Box:
    """The place that is cheapest, six for each square pixel of another thing that it covers."""
    prices, boxes = zip(*places, strict=True)
    one, other = np.array(boxes)[:, None], np.array(taken)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    covered = np.clip(sides, 0, None).prod(axis=-1).sum(axis=1)
    best: _Box = boxes[int((np.array(prices) + 6 * covered).argmin())]
    return best


def _beside(plane: _Plane, dot: _Dot, text: str) -> Iterator[tuple[float, _Box]]:
    """Places for a label in order of liking, each with its price; leaving the plot is dear."""
    x, y = plane.to_pixels(dot.x, dot.y)
    wide, tall = _text_width(text, 12), 13.0
    head, foot = plane.bar(dot)
    for ring, reach in enumerate((8.0, 14.0, 22.0, 32.0, 48.0)):
        right, left, above, below = x + reach, x - reach - wide, y - reach / 2 - tall, y + reach / 2
        corners = [(right, above), (left, above), (right, y - tall / 2), (left, y - tall / 2), (right, below), (left, below)]
        ends = [(x - wide / 2, min(head, y - 5) - reach / 2 - tall), (x - wide / 2, max(foot, y + 5) + reach / 2)]
        for liking, (across, down) in enumerate(corners + ends):
            box = _Box(across, down, across + wide, down + tall)
            outside = max(-box.left, box.right - WIDTH, -box.top, box.bottom - plane.height, 0)
            yield 25 * ring + 2 * liking + 1000 * outside, box


def _obstacles(plot: _Plot, dropped: Sequence[SweetSpot]) -> list[_Box]:
    """What a label should not cover: dots, bars, joining lines as chains of small boxes, drops, and ceilings with their names."""
    plane, boxes = plot.plane, []
    for dot in plot.dots:
        x, y = plane.to_pixels(dot.x, dot.y)
        boxes.append(_Box(x - 7, y - 7, x + 7, y + 7))
        if dot.up:
            top, bottom = plane.bar(dot)
            boxes.append(_Box(x - 2, top, x + 2, bottom))
        if dot.across:
            left, right = (plane.to_pixels(end, dot.y)[0] for end in dot.across)
            boxes.append(_Box(left, y - 2, right, y + 2))
    for one, other in pairwise(plot.dots):
        if one.task == other.task:
            start, end = np.array(plane.to_pixels(one.x, one.y)), np.array(plane.to_pixels(other.x, other.y))
            steps = np.linspace(0, 1, max(int(math.dist(start, end) / 5), 1) + 1)
            boxes += [_Box(x - 2, y - 2, x + 2, y + 2) for x, y in start + steps[:, None] * (end - start)]
    for spot in dropped:
        x, y = plane.to_pixels(spot.i_nce, spot.accuracy)
        boxes.append(_Box(x - 2, y, x + 2, plot.height))
    for log_k in {dot.point.log_k for dot in plot.dots if dot.point.log_k is not None}:
        if plane.names:
            _, y = plane.to_pixels(0, log_k)
            boxes += [_Box(0, y - 2, WIDTH, y + 2), _Box(WIDTH - 90, y - 20, WIDTH, y)]
        else:
            x, _ = plane.to_pixels(log_k, plane.y[0])
            boxes += [_Box(x - 2, 0, x + 2, plot.height), _Box(x, plot.height - 90, x + 20, plot.height)]
    return boxes


def _text_width(text: str, size: int) -> float:
    """Nearly the width in pixels, from the widths of Helvetica's letters in classes."""
    narrow, broad = sum(letter in " .,:;!|()'fijlrtI" for letter in text), sum(letter in "mwMWGOQ%@" for letter in text)
    return size * (0.57 * len(text) - 0.27 * narrow + 0.26 * broad)


def _png_size(png: bytes) -> tuple[int, int]:
    """Width and height, which the first chunk of every PNG gives."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("a picture of views must be a PNG")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
