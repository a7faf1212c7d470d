"""`GET /v1/sweeps/{id}/report.html`: one file that says what the curve says, and needs nothing beside it."""

import base64
import html
import json
import re
import struct
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import altair
import pytest
from fastapi.testclient import TestClient

from app import bibliography, figure
from ml.curve import Curve, Measurement, trace
from ml.spec import Axis, SweepSpec

Json = dict[str, Any]
SIGMAS = [0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.6, 2.5]
ACCURACIES = [0.56, 0.73, 0.78, 0.83, 0.86, 0.84, 0.82, 0.75]
NATS = [6.23, 6.19, 5.98, 4.73, 2.64, 1.39, 0.36, 0.02]


def png(grey: int) -> bytes:
    """Two pixels of this grey."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 2, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes([0, grey, grey])))
        + chunk(b"IEND", b"")
    )


def finish(work: Any, most: int = 1000) -> None:
    """Up to so many experiments as noise on digits went, each with a picture of its own sigma's grey."""
    while most and (claim := work.claim()) is not None:
        sigma, seed = claim.spec["views"].get("sigma"), claim.spec["seed"]
        index = SIGMAS.index(sigma) if sigma in SIGMAS else 4
        nats, accuracy = NATS[index] + 0.01 * (seed - 1), ACCURACIES[index] + 0.011 * (seed - 1)
        work.succeed(claim, nats, accuracy, artifacts={"preview.png": png(index)})
        most -= 1


@pytest.fixture
def digits(spec: Json) -> Json:
    return {"name": "noise on digits", "base": spec, "axis": {"path": "views.sigma", "values": SIGMAS}, "seeds": 3}


@pytest.fixture
def post(api: TestClient) -> Callable[[Json], str]:
    def post(spec: Json) -> str:
        answer = api.post("/v1/sweeps", json=spec)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    return post


def report(api: TestClient, sweep: str) -> str:
    answer = api.get(f"/v1/sweeps/{sweep}/report.html")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text; tags are closed as they were opened."""

    EMPTY = ("meta", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def test_the_question_and_the_answer_are_those_of_the_curve(
    api: TestClient, post: Callable[[Json], str], digits: Json, work: Any
) -> None:
    sweep = post(digits)
    finish(work)
    page = Page(report(api, sweep))
    verdict = api.get(f"/v1/sweeps/{sweep}/curve.json").json()["verdicts"]["classification"]
    assert verdict["shape"] == "inverted_u"
    assert verdict["words"] in page.words
    assert "Which σ of noise views is best for classification on digits?" in page.words
    assert not any("still" in words for words in page.words)
    assert api.get(f"/v1/sweeps/{sweep}").json()["links"]["report.html"] == f"/v1/sweeps/{sweep}/report.html"


def test_every_number_of_the_curve_stands_there_digit_for_digit_in_the_table_and_in_the_picture(
    api: TestClient, post: Callable[[Json], str], digits: Json, work: Any
) -> None:
    sweep = post(digits)
    finish(work)
    text = report(api, sweep)
    page = Page(text)
    said = "\n".join(attributes["aria-label"] or "" for _, attributes in page.tags if "aria-label" in attributes)
    svg = api.get(f"/v1/sweeps/{sweep}/curve.svg").text
    vega = api.get(f"/v1/sweeps/{sweep}/curve.vl.json").text
    points = json.loads(api.get(f"/v1/sweeps/{sweep}/curve.json").text, parse_float=str)["points"]
    assert len(points) == len(SIGMAS)
    for point in points:
        result = point["tasks"]["classification"]
        drawn = [point["i_nce"], *point["i_nce_ci"], point["log_k"], point["task_information"], point["nuisance"]]
        drawn += [result["value"], *result["ci"]]
        for number in drawn:
            assert number in page.words  # a text of its own
            for place in (said, svg, vega):
                assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d])", place)
        assert all(value in page.words for value in point["quality"].values())


def test_the_file_needs_nothing_beside_it_and_runs_no_script(
    api: TestClient, post: Callable[[Json], str], digits: Json, work: Any
) -> None:
    sweep = post(digits)
    finish(work)
    text = report(api, sweep)
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "video", "form"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)", text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    policy = api.get(f"/v1/sweeps/{sweep}/report.html").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; ")


def test_view_pairs_are_shown_at_the_peak_and_at_both_ends(
    api: TestClient, post: Callable[[Json], str], digits: Json, work: Any
) -> None:
    sweep = post(digits)
    finish(work)
    page = Page(report(api, sweep))
    shown = [str(attributes["src"]) for tag, attributes in page.tags if tag == "img"]
    assert [base64.b64decode(url.removeprefix("data:image/png;base64,")) for url in shown] == [png(0), png(4), png(7)]
    assert [words for words in page.words if words in ("the lower end", "the sweet spot", "the upper end")] == [
        "the lower end",
        "the sweet spot",
        "the upper end",
    ]


def test_a_sweep_that_runs_is_reported_as_far_as_it_is(
    api: TestClient, post: Callable[[Json], str], digits: Json, work: Any
) -> None:
    sweep = post(digits)
    words = Page(report(api, sweep)).words
    assert "The sweep is still queued: 0 of 24 trainings have ended, and this is what they say so far." in words
    assert "no verdict yet" in words
    finish(work, 4)
    page = Page(report(api, sweep))
    assert any("still running: 4 of 24 trainings have ended" in words for words in page.words)
    verdict = api.get(f"/v1/sweeps/{sweep}/curve.json").json()["verdicts"]["classification"]["words"]
    assert verdict.startswith("unclear: so far") and verdict in page.words
    assert sum(tag == "img" for tag, _ in page.tags) == 2  # both ends of what there is, one of them the best so far


def test_without_a_task_there_is_no_sweet_spot(api: TestClient, post: Callable[[Json], str], digits: Json, work: Any) -> None:
    sweep = post(digits | {"base": digits["base"] | {"tasks": []}})
    finish(work)
    page = Page(report(api, sweep))
    assert "there is no task, and so no sweet spot: this is only how much the views share" in page.words
    assert "How much do the views of digits share, by σ of noise views?" in page.words
    assert not any("recipe?format" in words for words in page.words)


def test_recipes_and_lists_are_axes_too(api: TestClient, post: Callable[[Json], str], digits: Json, work: Any) -> None:
    recipes = [{"kind": "crop", "area": 0.2 + 0.1 * index} for index in range(8)]
    sweep = post(digits | {"axis": {"path": "views", "values": recipes, "labels": [f"<crop {index}>" for index in range(8)]}})
    finish(work)
    page = Page(report(api, sweep))
    assert "Which view recipe is best for classification on digits?" in page.words
    assert {"<crop 0>", "<crop 7>"} <= set(page.words)
    assert "varies along the axis" in page.words


def test_an_ablation_ranks_its_operations(api: TestClient, post: Callable[[Json], str], digits: Json, work: Any) -> None:
    views = {"kind": "augment", "recipe": "lightly_cifar10"}
    base = {"dataset": {"name": "digits"}, "views": views, "tasks": [{"kind": "classification"}]}
    sweep = post({"base": base, "axis": {"path": "views", "ablate": True}, "seeds": 2})
    while (claim := work.claim()) is not None:
        work.succeed(claim, 2.0, 0.5 if claim.spec["views"]["crop_p"] == 0 else 0.8 + 0.01 * claim.spec["seed"])
    curve = api.get(f"/v1/sweeps/{sweep}/curve.json").json()
    page = Page(report(api, sweep))
    assert "What is each operation of augment worth for classification on digits?" in page.words
    assert curve["ablation_words"]["classification"] in page.words
    first = curve["ablation"]["classification"][0]
    assert first["operation"] == "crop"
    assert {"crop", json.dumps(first["cost"]["value"])} <= set(page.words)


def test_a_search_is_reported_with_what_it_spent(api: TestClient, post: Callable[[Json], str], digits: Json) -> None:
    search = {"low": 0.02, "high": 4, "scale": "log", "trainings": 12}
    sweep = post({"base": digits["base"], "axis": {"path": "views.sigma", "search": search}})
    page = Page(report(api, sweep))
    assert "The search" in page.words
    assert any("of 12 trainings, at" in words for words in page.words)


def test_reused_trainings_are_named(api: TestClient, post: Callable[[Json], str], digits: Json, work: Any) -> None:
    post(digits | {"axis": {"path": "views.sigma", "values": [0.7, 1.0]}})
    finish(work)
    sweep = post(digits)
    finish(work)
    page = Page(report(api, sweep))
    reused = [member["id"] for member in api.get(f"/v1/sweeps/{sweep}").json()["experiments"] if member["reused"]]
    assert len(reused) == 6
    assert set(reused) <= set(page.words)
    assert any(words.startswith("6 of 24 trainings had been finished before this sweep") for words in page.words)


def test_code_hardware_data_and_seeds_are_named(api: TestClient, post: Callable[[Json], str], digits: Json, work: Any) -> None:
    sweep = post(digits | {"base": digits["base"] | {"seed": 5}})
    finish(work)
    text = "\n".join(Page(report(api, sweep)).words)
    code = api.get("/version").json()["code"]
    assert f"cpu, a processor, 1 thread; sweetspot {code}, torch 2.13.0" in text
    assert "24 trainings on" in text
    assert "5, 6, 7" in text
    assert f"1078 items for training, 719 held out; SHA-256 {'0' * 64}" in text
    assert "simclr, projection 64, head mlp, hidden 64, temperature 0.2" in text
    assert "noise, sigma along the axis" in text


def test_the_command_is_the_sweep_itself(api: TestClient, post: Callable[[Json], str], digits: Json, work: Any) -> None:
    sweep = post(digits | {"name": "quotes ' and \" & $HOME `x`"})
    finish(work)
    page = Page(report(api, sweep))
    command = next(words for words in page.words if words.startswith("sweetspot sweep - --wait <<'SWEEP'\n"))
    document = json.loads(command.removeprefix("sweetspot sweep - --wait <<'SWEEP'\n").removesuffix("\nSWEEP"))
    again = api.post("/v1/sweeps?dry_run=true", json=document)
    assert again.status_code == 200, again.text
    assert again.json()["spec"] == api.get(f"/v1/sweeps/{sweep}").json()["spec"]


def test_what_comes_from_outside_is_text_and_nothing_else(
    api: TestClient, post: Callable[[Json], str], digits: Json, work: Any
) -> None:
    name = '<script>alert("x")</script><img src=x onerror=y>'
    sweep = post(digits | {"name": name})
    finish(work)
    text = report(api, sweep)
    assert html.escape(name, quote=False).split("<")[0] in text
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any("onerror" in attributes for _, attributes in page.tags)


def test_failed_trainings_are_told(api: TestClient, post: Callable[[Json], str], digits: Json, work: Any) -> None:
    from app.persistence import leases  # noqa: PLC0415

    sweep = post(digits)
    claim = work.claimed()
    work.write(lambda session: leases.fail(session, claim, {"code": "internal", "message": "the loss is not finite"}))
    finish(work)
    words = Page(report(api, sweep)).words
    assert "Of 24 trainings 1 failed: they are missing here." in words
    assert any("the loss is not finite" in text for text in words)


def test_a_sweep_that_is_not_there(api: TestClient) -> None:
    answer = api.get(f"/v1/sweeps/swp_{'0' * 32}/report.html")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_report_stays_the_same_while_nothing_changes(
    api: TestClient, post: Callable[[Json], str], digits: Json, work: Any
) -> None:
    sweep = post(digits)
    finish(work)
    tag = api.get(f"/v1/sweeps/{sweep}/report.html").headers["etag"]
    assert api.get(f"/v1/sweeps/{sweep}/report.html", headers={"If-None-Match": tag}).status_code == 304


def split_curve(parts: list[tuple[float | None, float | None]]) -> Curve:
    """A curve of sigmas whose I_NCE is split like this."""
    measured = [
        Measurement(f"exp_{index}", index, 0, nats, 0.02, 6.2, nats > 5.2, {}, *part)
        for index, (nats, part) in enumerate(zip(NATS, parts, strict=False))
    ]
    return trace(Axis(path="views.sigma", values=tuple(SIGMAS[: len(parts)])), measured)


def bars(specification: Json) -> list[Json]:
    layers = [layer for layer in specification["layer"] if layer["mark"]["type"] == "bar"]
    return [row for layer in layers for row in layer["data"]["values"]]


def test_parts_of_the_information_stack_up_and_hang_down() -> None:
    curve = split_curve([(4.0, 2.23), (-0.5, 6.69), (6.2, -0.22), (-0.1, -0.2)])
    specification = figure.information(curve, "What the views share")
    altair.Chart.from_dict(specification, validate=True)
    ends = [(bar["x"], bar["part"], bar["y"], bar["y2"]) for bar in bars(specification)]
    assert ends == [
        (0, "about the label", 0, 4.0),
        (0, "nuisance", 4.0, 6.23),
        (1, "about the label", 0, -0.5),
        (1, "nuisance", 0, 6.69),  # it stands on the line: its height is what was measured
        (2, "about the label", 0, 6.2),
        (2, "nuisance", 0, -0.22),
        (3, "about the label", 0, -0.1),
        (3, "nuisance", -0.1, pytest.approx(-0.3)),
    ]
    drawn = figure.render(specification, "svg").decode()
    assert "a part below 0 is the error of an estimate: no information is negative" in drawn
    assert 'aria-label="σ 0.1: about the label -0.5 nats"' in drawn
    low, high = specification["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert low < -0.5 and high > 6.69


def test_information_that_was_not_split_is_marked_all_the_same() -> None:
    specification = figure.information(split_curve([(None, None)] * 3), "")
    assert bars(specification) == []
    drawn = figure.render(specification, "svg").decode()
    assert "not split: the items have no classes by which it could be" in drawn
    assert drawn.count("I_NCE at least") == 3
    empty = figure.information(trace(Axis(path="views.sigma", values=tuple(SIGMAS)), []), "")
    assert "no measurements yet" in figure.render(empty, "svg").decode()


def cited(spec: Json) -> str:
    return "\n".join(bibliography.cited(SweepSpec.model_validate(spec)))


def test_sources_are_those_of_what_was_used(digits: Json) -> None:
    entries = cited(digits)
    for key in ("tian2020makes", "oord2018representation", "chen2020simple", "simonsohn2018two", "thilak2024lidar"):
        assert f"{{{key}," in entries
    assert "alpaydin1998optical" in entries and "he2020momentum" not in entries
    moco = digits | {
        "base": digits["base"] | {"method": {"kind": "moco"}, "encoder": {"kind": "resnet18"}, "dataset": {"name": "cifar10"}}
    }
    assert all(key in cited(moco) for key in ("he2020momentum", "he2016deep", "krizhevsky2009learning"))
    recipes = digits | {"axis": {"path": "views", "values": [{"kind": "augment", "recipe": "infomin"}, {"kind": "color_split"}]}}
    assert all(key in cited(recipes) for key in ("cubuk2020randaugment", "tian2020contrastive"))


@pytest.mark.parametrize("entry", bibliography.ENTRIES.values(), ids=bibliography.ENTRIES)
def test_every_source_is_sound_bibtex(entry: str) -> None:
    assert re.fullmatch(r"@(article|inproceedings|techreport|misc)\{\w+,\n(  \w+ = \{.+\},?\n)+\}", entry)
    assert entry.count("{") == entry.count("}")
    assert all(field in entry for field in ("title = ", "author = ", "year = "))
