"""The figure holds the curve's numbers in every format, and is valid in each."""

import csv
import io
import json
import math
import struct
import zlib
from xml.etree import ElementTree

import altair
import pytest

from app.figure import figure, render, to_csv, views_picture
from ml import spec
from ml.curve import QUALITIES, Curve, Measurement, TaskResult, trace

SIGMAS = (0, 0.1, 0.2, 0.4, 0.7, 1, 1.6, 2.5)
ACCURACIES = (0.56, 0.73, 0.78, 0.83, 0.86, 0.84, 0.82, 0.75)
NATS = (6.23, 6.19, 5.98, 4.73, 2.64, 1.39, 0.36, 0.02)
LOG_K = math.log(512)


def measurements(values: int = 8, seeds: int = 3, start: int = 0) -> list[Measurement]:
    return [
        Measurement(
            experiment=f"exp_{index}_{seed}",
            index=index,
            seed=seed,
            i_nce=NATS[index] + 0.01 * (seed - 1),
            i_nce_stderr=0.02,
            log_k=LOG_K,
            saturated=NATS[index] > LOG_K - 1,
            tasks={
                "classification": TaskResult(ACCURACIES[index] + 0.01 * (seed - 1), (ACCURACIES[index] - 0.03, 0.9)),
                "knn": TaskResult(ACCURACIES[index] - 0.1 + 0.013 * (seed - 1)),
            },
            quality={"lidar": 9 + index + 0.3 * seed, "uniformity": -2 - 0.1 * seed},
        )
        for index in range(start, start + values)
        for seed in range(seeds)
    ]


def curve(measured: list[Measurement] | None = None) -> Curve:
    return trace(spec.Axis(path="views.sigma", values=SIGMAS), measurements() if measured is None else measured)


def recipes() -> Curve:
    values = tuple({"kind": "crop", "area": (1 + index) / 10} for index in range(8))
    labels = ("RGB", "HSV", "HED", "Lab", "LUV", "YUV", "XYZ", "a & b <c>")
    return trace(spec.Axis(path="views", values=values, labels=labels), measurements())


def texts(svg: bytes) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("}text")]


def png_size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def grey_png(width: int, height: int, grey: int = 64) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + bytes([grey]) * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def without_tasks(axis: spec.Axis | None = None, measured: list[Measurement] | None = None) -> Curve:
    axis = axis or spec.Axis(path="views.sigma", values=SIGMAS)
    measured = measurements() if measured is None else measured
    return trace(axis, [Measurement(**{**vars(each), "tasks": {}}) for each in measured])


def test_the_svg_says_what_the_curve_says() -> None:
    drawn = texts(render(figure(curve(), "Noise on digits"), "svg"))
    for text in ("Noise on digits", "log K = 6.24", "σ = 0.7", "1.6", "2.5", "0.2 (≥ 5.98 nats)", "0 (≥ 6.23 nats)"):
        assert text in drawn
    for text in ("missing information", "sweet spot of classification", "excess noise", "classification", "knn"):
        assert text in drawn
    for task in ("classification", "knn"):
        assert any(f"{task}: inverted U: the peak is at σ 0.7 (" in text for text in drawn)
    alone = texts(render(figure(curve(), "Noise on digits", task="classification"), "svg"))
    assert "sweet spot" in alone
    assert any(text.startswith("inverted U: the peak is at σ 0.7 (") for text in alone)


def test_the_picture_has_two_pixels_for_each_unit() -> None:
    svg = ElementTree.fromstring(render(figure(curve(), "Noise"), "svg"))
    width, height = png_size(render(figure(curve(), "Noise"), "png"))
    assert (width, height) == pytest.approx((2 * float(svg.attrib["width"]), 2 * float(svg.attrib["height"])), abs=2)


def test_the_pdf_is_one() -> None:
    assert render(figure(curve(), "Noise"), "pdf").startswith(b"%PDF-")


@pytest.mark.parametrize(
    "drawn", [curve(), curve([]), recipes(), without_tasks()], ids=["curve", "empty", "recipes", "without tasks"]
)
def test_the_specification_is_valid_and_draws_the_same_picture(drawn: Curve) -> None:
    specification = json.loads(render(figure(drawn, "Noise"), "vl.json"))
    altair.Chart.from_dict(specification, validate=True)
    assert "vega-lite/v" in specification["$schema"]
    assert render(specification, "svg") == render(figure(drawn, "Noise"), "svg")


def test_the_specification_holds_the_curve_digit_for_digit() -> None:
    drawn = curve()
    numbers = {json.dumps(row.get(key)) for rows in datasets(figure(drawn, "")) for row in rows for key in ("x", "y")}
    for point in json.loads(drawn.model_dump_json())["points"]:
        assert json.dumps(point["i_nce"]) in numbers
        assert json.dumps(point["tasks"]["classification"]["value"]) in numbers


def datasets(specification: dict) -> list[list[dict]]:
    shared = list(specification.get("datasets", {}).values())
    return shared + [layer["data"]["values"] for layer in specification["layer"] if "values" in layer.get("data", {})]


@pytest.mark.parametrize(("values", "seeds"), [(0, 0), (1, 1), (1, 3), (2, 3), (8, 1), (4, 3)])
def test_a_curve_without_a_verdict_is_drawn_without_shades(values: int, seeds: int) -> None:
    drawn = texts(render(figure(curve(measurements(values, seeds, start=0)), "Noise"), "svg"))
    assert not {"missing information", "sweet spot", "excess noise"} & set(drawn)
    assert ("no measurements yet" in drawn) == (values == 0)
    assert ("log K = 6.24" in drawn) == (values > 0)


def test_recipes_are_named_and_not_joined() -> None:
    specification = figure(recipes(), "Colour <spaces> & others")
    drawn = texts(render(specification, "svg"))
    assert {"LUV", "a & b <c>", "Colour <spaces> & others"} <= set(drawn)
    assert "line" not in {layer["mark"]["type"] for layer in specification["layer"]}


def three_tasks() -> Curve:
    """The best views depend on the task: digits at sigma 0.7, backgrounds at 0.2, places at 1.6 with an error in pixels."""
    backgrounds = (0.52, 0.6, 0.64, 0.55, 0.45, 0.38, 0.25, 0.15)
    errors = (13.5, 12.0, 10.5, 8.6, 7.0, 5.2, 4.2, 7.5)
    measured = [
        Measurement(
            **{
                **vars(each),
                "tasks": {
                    "digit": TaskResult(ACCURACIES[each.index] + 0.01 * (each.seed - 1)),
                    "background": TaskResult(backgrounds[each.index] + 0.01 * (each.seed - 1)),
                    "place": TaskResult(errors[each.index] + 0.1 * (each.seed - 1), None, "pixels"),
                },
            }
        )
        for each in measurements()
    ]
    return curve(measured)


def layers(specification: dict) -> list[dict]:
    return [layer for plot in specification.get("vconcat", [specification]) for layer in plot["layer"]]


def test_tasks_of_another_metric_have_a_plot_of_their_own_in_which_less_is_up() -> None:
    drawn = three_tasks()
    specification = figure(drawn, "Noise on moving digits")
    above, below = ({layer["encoding"]["y"]["title"]: layer for layer in plot["layer"]} for plot in specification["vconcat"])
    assert (list(above), list(below)) == (["Accuracy on held-out items"], ["Localization error (px), less is better"])
    bottom, top = below["Localization error (px), less is better"]["encoding"]["y"]["scale"]["domain"]
    assert bottom > max(point.tasks["place"].value for point in drawn.points)
    assert 0 <= top < min(point.tasks["place"].value for point in drawn.points)
    words = texts(render(specification, "svg"))
    assert {"digit", "background", "place", "sweet spot of digit", "sweet spot", "σ = 0.7", "σ = 1.6"} <= set(words)
    assert any("place: inverted U: the least error is at σ 1.6 (" in text for text in words)
    assert words.count("○ saturated: at least") == 1
    altair.Chart.from_dict(specification, validate=True)


def test_every_task_has_its_sweet_spot_marked_and_a_colour_of_its_own() -> None:
    drawn = three_tasks()
    specification = figure(drawn, "Noise on moving digits")
    marked = [layer for layer in layers(specification) if layer["mark"].get("size") == 170]
    rims = [layer["mark"]["stroke"] for layer in marked]
    assert len(marked) == len(set(rims)) == 3
    shown = [(place["x"], place["y"]) for layer in marked for place in rows_of(specification, layer)]
    spots = [verdict.sweet_spot for verdict in drawn.verdicts.values()]
    assert shown == [(spot.i_nce, spot.accuracy) for spot in spots if spot]
    alone = layers(figure(drawn, "Noise on moving digits", task="place"))
    assert [layer["mark"]["stroke"] for layer in alone if layer["mark"].get("size") == 170] == ["white"]


def rows_of(specification: dict, layer: dict) -> list[dict]:
    data = layer["data"]
    return data["values"] if "values" in data else specification["datasets"][data["name"]]


def test_more_tasks_than_colours_make_another_plot() -> None:
    measured = [
        Measurement(**{**vars(each), "tasks": {f"task {number}": TaskResult(0.1 * number) for number in range(7)}})
        for each in measurements(2)
    ]
    plots = figure(curve(measured), "Many")["vconcat"]
    domains = [{tuple(layer["encoding"]["color"]["scale"]["domain"]) for layer in plot["layer"] if "color" in layer["encoding"]}
               for plot in plots]  # fmt: skip
    assert domains == [{tuple(f"task {number}" for number in range(5))}, {("task 5", "task 6")}]


def test_values_that_are_lists_are_named_in_words() -> None:
    values = (["digit"], ["digit", "position"], ["background"])
    drawn = trace(spec.Axis(path="views.shared", values=values), measurements(3, start=0))
    assert {"digit + position (≥ 6.19 nats)", "background (≥ 5.98 nats)"} <= set(texts(render(figure(drawn, ""), "svg")))
    rows = list(csv.DictReader(io.StringIO(to_csv(drawn))))
    assert [row["label"] for row in rows] == ["digit", "digit + position", "background"]
    assert json.loads(rows[1]["value"]) == ["digit", "position"]


def test_without_tasks_information_is_drawn_over_the_axis_in_its_order() -> None:
    shuffled = spec.Axis(path="views.sigma", values=tuple(reversed(SIGMAS)))
    measured = [Measurement(**{**vars(each), "index": len(SIGMAS) - 1 - each.index}) for each in measurements()]
    for drawn in (without_tasks(), without_tasks(shuffled, measured)):
        specification = figure(drawn, "Photographs")
        shown = texts(render(specification, "svg"))
        assert {"there is no task, and so no sweet spot: this is only how much the views share", "log K = 6.24"} <= set(shown)
        assert {"σ", "0.7", "2.64", "≥ 5.98", "4.73*", "0.02"} <= set(shown)
        assert "○ saturated: at least · * probably low by more than 5 %" in shown
        assert not {"no measurements yet", "sweet spot", "Accuracy on held-out items"} & set(shown)
        (path,) = (layer for layer in layers(specification) if layer["mark"]["type"] == "line")
        assert [row["y"] for row in rows_of(specification, path)] == pytest.approx(NATS)
        for form in ("png", "pdf"):
            assert render(specification, form)


def test_without_tasks_every_point_has_the_interval_of_its_information() -> None:
    drawn = without_tasks()
    specification = figure(drawn, "Photographs")
    shown = [row for layer in layers(specification) if layer["mark"]["type"] == "rule" for row in rows_of(specification, layer)]
    bars = [(row["x"], row["y"], row["y2"]) for row in shown if "y2" in row]
    assert bars == [(place, *point.i_nce_ci) for place, point in enumerate(drawn.points) if point.i_nce_ci]


def test_without_tasks_values_without_an_order_are_categories() -> None:
    values = (["digit"], ["digit", "position"], ["digit", "position", "background"], ["background"])
    measured = [each for each in measurements(4) if each.index != 1]
    specification = figure(without_tasks(spec.Axis(path="views.shared", values=values), measured), "Scenes")
    assert "line" not in {layer["mark"]["type"] for layer in specification["layer"]}
    shown = texts(render(specification, "svg"))
    names = ["digit", "digit + position", "digit + position + background", "background"]
    assert [text for text in shown if text in names] == names  # the one that was not measured yet, too
    dots = [row for layer in layers(specification) if layer["mark"].get("size") == 62 for row in rows_of(specification, layer)]
    assert sorted(row["x"] for row in dots) == [0, 2, 3]


def test_one_task_alone_has_no_legend() -> None:
    drawn = texts(render(figure(curve(), "Noise", task="knn"), "svg"))
    assert "knn" not in drawn
    with pytest.raises(KeyError, match="no task 'position' on this curve; it has classification, knn"):
        figure(curve(), "Noise", task="position")


def test_the_csv_has_the_numbers_of_the_json_digit_for_digit() -> None:
    for drawn in (curve(), curve(measurements(3, 2)), curve([]), recipes(), three_tasks(), without_tasks()):
        points = json.loads(drawn.model_dump_json(), parse_float=str)["points"]
        rows = list(csv.DictReader(io.StringIO(to_csv(drawn))))
        assert len(rows) == len(points)
        for row, point in zip(rows, points, strict=True):
            low, high = point["i_nce_ci"] or ("", "")
            assert (row["i_nce"], row["i_nce_low"], row["i_nce_high"]) == (point["i_nce"] or "", low, high)
            assert (row["log_k"], row["regime"], row["label"]) == (point["log_k"] or "", point["regime"], point["label"])
            assert row["experiments"].split() == point["experiments"]
            assert {name: row[name] for name in QUALITIES if row[name]} == point["quality"]
            for name, task in point["tasks"].items():
                assert [row[name], row[f"{name}_low"], row[f"{name}_high"]] == [task["value"], *(task["ci"] or ("", ""))]
                assert (row[f"{name}_seeds"], row[f"{name}_metric"]) == (str(task["seeds"]), task["metric"])


def test_views_stand_under_each_other_with_their_captions() -> None:
    rows = [("σ = 0.4 · 4.73 nats · 83 %", grey_png(40, 10)), ("σ = 1 · 1.39 nats · 84 %", grey_png(40, 20))]
    specification = views_picture(rows)
    assert [caption for caption, _ in rows] == texts(render(specification, "svg"))
    png = render(specification, "png")
    width, height = png_size(png)
    without, _ = png_size(render(views_picture(rows[:1]), "png"))
    assert without == pytest.approx(width, abs=40)
    assert height == pytest.approx(2 * (600 / 4 + 600 / 2 + 14 + 2 * 16), abs=8)
    assert render(views_picture([rows[0], (rows[1][0], grey_png(40, 20, grey=200))]), "png") != png  # the pictures are drawn
    with pytest.raises(ValueError, match="must be a PNG"):
        views_picture([("σ = 0", b"GIF89a")])


@pytest.mark.parametrize("odd", ["\x1b[2J", "\0", "￾", "\ud800", "\x7f"])
def test_what_no_svg_can_hold_does_not_end_the_process(odd: str) -> None:
    drawing = {"mark": "point", "data": {"values": [{"x": 1, f"y{odd}": odd}]}, "title": odd, "encoding": {"x": {"field": "x"}}}
    assert render(drawing, "svg").startswith(b"<svg")
    assert render(drawing, "png").startswith(b"\x89PNG")
