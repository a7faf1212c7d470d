"""The client against a real HTTP server that answers as it is told."""

import base64
import copy
import csv
import io
import json
import math
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import altair
import pytest
from rich.console import Console

from app import figure, progress, runtime
from app.client import (
    ConflictError,
    InvalidError,
    NotFoundError,
    ProblemError,
    Sweetspot,
    SweetspotError,
    UnavailableError,
    UnreachableError,
    WaitTimeoutError,
)
from app.curve import Curve
from app.embedded import free_port
from app.settings import settings
from ml import spec
from ml.curve import Curve as Numbers
from ml.curve import Measurement, TaskResult, trace

Answer = tuple[int, dict[str, str], bytes] | None
JSON = {"Content-Type": "application/json"}


class Service:
    """Answers the requests in turn with `answers`, the last one again and again; None hangs up without an answer."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service.requests.append((self.command, self.path, dict(self.headers), body))
                answer = service.answers.pop(0) if len(service.answers) > 1 else service.answers[0]
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, content = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def headers(self, name: str) -> list[str | None]:
        return [{key.lower(): value for key, value in headers.items()}.get(name.lower()) for _, _, headers, _ in self.requests]


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    thread = threading.Thread(target=service.server.serve_forever, args=(0.02,))
    thread.start()
    yield service
    service.server.shutdown()
    thread.join()
    service.server.server_close()


def answer(status: int, content: Any, **headers: str) -> Answer:
    return status, {**JSON, **headers}, json.dumps(content).encode()


def problem(status: int, **more: Any) -> Answer:
    document = {"type": "urn:x", "title": "No", "status": status, "detail": "because", "errors": [], "request_id": "r1", **more}
    return status, {"Content-Type": "application/problem+json"}, json.dumps(document).encode()


QUEUED = answer(202, {"id": "exp_1", "state": "queued"})


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidError), (404, NotFoundError), (409, ConflictError), (422, InvalidError), (418, ProblemError)],
)
def test_a_problem_document_becomes_its_error(service: Service, status: int, kind: type[ProblemError]) -> None:
    service.answers = [problem(status)]
    with Sweetspot(service.url) as client, pytest.raises(kind) as caught:
        client.get("exp_1")
    assert type(caught.value) is kind
    assert str(caught.value) == "No: because"
    assert len(service.requests) == 1


def test_the_fields_at_fault_are_listed_a_line_each(service: Service) -> None:
    errors = [{"pointer": "/views/sigma", "message": "unknown field"}, {"pointer": "/mi/k", "message": "2 to 512, not 1"}]
    service.answers = [problem(422, errors=errors)]
    with Sweetspot(service.url) as client, pytest.raises(InvalidError) as caught:
        client.submit({"dataset": {"name": "digits"}})
    assert str(caught.value) == "No:\n  /views/sigma: unknown field\n  /mi/k: 2 to 512, not 1"
    assert caught.value.errors == [("/views/sigma", "unknown field"), ("/mi/k", "2 to 512, not 1")]


def test_an_error_that_is_no_problem_document_is_still_told(service: Service) -> None:
    service.answers = [(500, {"Content-Type": "text/html"}, b"<html>")]
    with Sweetspot(service.url) as client, pytest.raises(ProblemError, match="500 Internal Server Error"):
        client.get("exp_1")


@pytest.mark.parametrize("trouble", [None, problem(503, retryable=True), problem(409, retryable=True), (502, {}, b"")])
def test_trouble_is_tried_again_under_the_same_key(service: Service, trouble: Answer) -> None:
    service.answers = [trouble, trouble, QUEUED]
    with Sweetspot(service.url) as client:
        assert client.submit({"seed": 1})["id"] == "exp_1"
    assert len(service.requests) == 3
    assert len(set(service.headers("Idempotency-Key"))) == 1
    assert len({body for *_, body in service.requests}) == 1


def test_two_submissions_have_two_keys(service: Service) -> None:
    service.answers = [QUEUED]
    with Sweetspot(service.url) as client:
        client.submit({})
        client.sweep({})
        client.run_preset("digits-noise", seed=3)
        client.retry("exp_1")
    keys = service.headers("Idempotency-Key")
    assert None not in keys
    assert len(set(keys)) == 4
    paths = [path for _, path, _, _ in service.requests]
    assert paths == ["/v1/experiments", "/v1/sweeps", "/v1/presets/digits-noise/run", "/v1/experiments/exp_1/retry"]
    assert json.loads(service.requests[2][3]) == {"seed": 3}


def test_patience_ends(service: Service) -> None:
    service.answers = [problem(503, retryable=True)]
    with Sweetspot(service.url, patience=0.3) as client, pytest.raises(UnavailableError):
        client.get("exp_1")
    assert len(service.requests) > 1


def test_a_service_that_is_not_there_is_told_with_what_starts_it() -> None:
    with (
        Sweetspot(f"http://127.0.0.1:{free_port()}", patience=0.1) as client,
        pytest.raises(UnreachableError, match="sweetspot up"),
    ):
        client.get("exp_1")


def test_the_key_goes_along(service: Service) -> None:
    service.answers = [answer(200, {"data": []})]
    with Sweetspot(service.url, key="secret") as client:
        client.catalog("views")
    assert service.headers("Authorization") == ["Bearer secret"]


def test_a_spec_that_is_not_json_and_an_id_that_is_none_are_refused_here(service: Service) -> None:
    with Sweetspot(service.url) as client:
        with pytest.raises(SweetspotError, match="JSON"):
            client.submit({"views": {"sigma": float("nan")}})
        with pytest.raises(SweetspotError, match="exp_"):
            client.get("nonsense")
    assert service.requests == []


def test_waiting_asks_the_service_to_wait_and_tells_of_changes(service: Service) -> None:
    states = [{"id": "exp_1", "state": state} for state in ("queued", "running", "running", "succeeded")]
    service.answers = [answer(200, state) for state in states]
    seen: list[str] = []
    with Sweetspot(service.url) as client:
        found = client.wait("exp_1", on_change=lambda found: seen.append(found["state"]))
    assert found["state"] == "succeeded"
    assert seen == ["queued", "running", "succeeded"]
    assert service.headers("Prefer") == ["wait=1"] * 4


def test_waiting_without_an_audience_waits_long_and_has_an_end(service: Service) -> None:
    service.answers = [answer(200, {"id": "swp_1", "state": "running"})]
    with Sweetspot(service.url) as client, pytest.raises(WaitTimeoutError, match="still running"):
        client.wait("swp_1", timeout=0)
    service.answers = [answer(200, {"id": "swp_1", "state": "failed"})]
    with Sweetspot(service.url) as client:
        assert client.wait("swp_1")["state"] == "failed"
    assert service.headers("Prefer") == [None, "wait=60"]


def test_a_preview_is_fetched_where_it_will_be(service: Service) -> None:
    service.answers = [
        answer(202, {}, Location="/v1/previews/prv_1"),
        answer(202, {}, Location="/v1/previews/prv_1"),
        (200, {}, b"PNG"),
    ]
    with Sweetspot(service.url) as client:
        assert client.preview({"name": "digits"}, {"kind": "noise"}) == b"PNG"
    assert [path for _, path, _, _ in service.requests] == ["/v1/previews", "/v1/previews/prv_1", "/v1/previews/prv_1"]


def test_an_upload_that_is_tried_again_is_sent_whole_again(service: Service, tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(b"PK" * 100_000)
    service.answers = [problem(503, retryable=True), answer(202, {"id": "ds_1", "state": "processing"})]
    with Sweetspot(service.url) as client:
        assert client.upload(tmp_path / "mine.zip", layout="photos")["id"] == "ds_1"
    assert len(set(service.headers("Idempotency-Key"))) == 1
    for _, path, headers, body in service.requests:
        assert path == "/v1/datasets" and headers["Content-Type"].startswith("multipart/form-data; boundary=")
        assert b'name="layout"\r\n\r\nphotos\r\n' in body and b'filename="mine.zip"' in body
        assert b"PK" * 100_000 in body and body.index(b"photos") < body.index(b"PK")


def test_lists_go_on_over_the_pages(service: Service) -> None:
    service.answers = [
        answer(200, {"data": [{"id": "exp_2"}], "has_more": True, "next_cursor": "exp_2"}),
        answer(200, {"data": [{"id": "exp_1"}], "has_more": False, "next_cursor": None}),
    ]
    with Sweetspot(service.url) as client:
        assert [found["id"] for found in client.experiments(state="failed")] == ["exp_2", "exp_1"]
    assert [path for _, path, _, _ in service.requests] == [
        "/v1/experiments?state=failed",
        "/v1/experiments?state=failed&cursor=exp_2",
    ]


def test_a_curve_comes_parsed_or_as_a_file(service: Service) -> None:
    service.answers = [answer(200, {"points": []}), (200, {}, b"<svg/>")]
    with Sweetspot(service.url) as client:
        assert client.curve("swp_1") == {"points": []}
        assert client.curve("swp_1", "svg") == b"<svg/>"
    assert [path for _, path, _, _ in service.requests] == ["/v1/sweeps/swp_1/curve.json", "/v1/sweeps/swp_1/curve.svg"]


def traced(**axis: Any) -> Numbers:
    """An inverted U of two tasks; the last value is not measured yet."""
    sigmas, nats = (0.1, 0.2, 0.4, 0.7, 1.0, 1.6, 2.5), (6.1, 5.9, 4.7, 2.6, 1.4, 0.4)
    measured = [
        Measurement(
            experiment=f"exp_{index}_{seed}",
            index=index,
            seed=seed,
            i_nce=nats[index] + seed / 30,
            i_nce_stderr=0.02,
            log_k=math.log(512),
            saturated=nats[index] > 5.3,
            tasks={"probe": TaskResult(0.9 - (index - 3) ** 2 / 30 + seed / 70), "knn": TaskResult(0.6 + seed / 30)},
            quality={"lidar": 9 + index / 3},
        )
        for index in range(6)
        for seed in range(3)
    ]
    return trace(spec.Axis(**({"path": "views.sigma", "values": sigmas} | axis)), measured)


def curve_of(service: Service, numbers: Numbers) -> Curve:
    service.answers = [(200, JSON, numbers.model_dump_json().encode())]
    with Sweetspot(service.url) as client:
        return client.curve("swp_1")


def test_a_curve_is_still_the_json(service: Service) -> None:
    numbers = traced()
    curve = curve_of(service, numbers)
    assert curve == json.loads(numbers.model_dump_json()) == json.loads(json.dumps(curve))
    assert curve == copy.deepcopy(curve) == pickle.loads(pickle.dumps(curve))
    assert isinstance(copy.deepcopy(curve), Curve)


def test_a_frame_has_the_numbers_of_the_csv_and_the_json_digit_for_digit(service: Service) -> None:
    numbers = traced()
    curve = curve_of(service, numbers)
    frame = curve.to_frame()
    head, *rows = csv.reader(io.StringIO(figure.to_csv(numbers)))
    assert list(frame.columns) == head
    for cells, row in zip(frame.to_numpy().tolist(), rows, strict=True):
        for name, cell, text in zip(head, cells, row, strict=True):
            if text == "":
                assert cell == "" or math.isnan(cell), name
            elif isinstance(cell, bool):
                assert json.loads(text) is cell, name
            else:
                assert (cell if isinstance(cell, str) else float(text)) == (text if isinstance(cell, str) else cell), name
    assert frame.index.name == "sigma" and frame.index.tolist() == curve["axis"]["values"]
    for point in curve["points"][:6]:
        row = frame.loc[point["value"]]
        assert (row["i_nce"], row["i_nce_low"], row["i_nce_high"]) == (point["i_nce"], *point["i_nce_ci"])
        assert (row["probe"], row["probe_seeds"]) == (point["tasks"]["probe"]["value"], 3)
    assert frame["i_nce"].dtype == frame["nuisance"].dtype == float and frame["saturated"].dtype == bool


def test_a_frame_of_recipes_is_indexed_by_their_labels(service: Service) -> None:
    areas = [{"kind": "crop", "area": (1 + index) / 10} for index in range(7)]
    frame = curve_of(service, traced(path="views", values=areas, labels=list("abcdefg"))).to_frame()
    assert frame.index.name == "views" and frame.index.tolist() == list("abcdefg")
    assert frame.loc["c", "value"] == areas[2]


def test_a_frame_without_pandas_says_what_to_install(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        curve_of(service, traced()).to_frame()


def test_a_plot_is_the_services_own_drawing(service: Service, tmp_path: Path) -> None:
    numbers = traced()
    drawn = {task: figure.figure(numbers, "noise on digits", task) for task in (None, "knn")}
    service.answers = [answer(200, json.loads(numbers.model_dump_json())), *(answer(200, each) for each in drawn.values())]
    with Sweetspot(service.url) as client:
        curve = client.curve("swp_1")
        chart, of_one = curve.plot(), curve.plot("knn")
    assert (chart.to_dict(), of_one.to_dict()) == tuple(drawn.values())
    assert [path for _, path, _, _ in service.requests[1:]] == [
        "/v1/sweeps/swp_1/curve.vl.json",
        "/v1/sweeps/swp_1/curve.vl.json?task=knn",
    ]
    assert isinstance(chart, altair.LayerChart) and chart._repr_mimebundle_()
    chart.save(tmp_path / "curve.svg")
    assert "noise on digits" in (tmp_path / "curve.svg").read_text()


def test_a_curve_that_cannot_ask_the_service_draws_itself(service: Service) -> None:
    numbers = traced()
    curve = curve_of(service, numbers)
    assert curve.plot("probe").to_dict() == Curve(dict(curve)).plot("probe").to_dict() == figure.figure(numbers, "", "probe")
    assert len(service.requests) == 1, "whose connections were let go"


def test_a_notebook_shows_a_curve_as_figure_and_verdict(service: Service) -> None:
    numbers = traced()
    curve = curve_of(service, numbers)
    page = curve._repr_html_()
    picture = base64.b64decode(page.partition("base64,")[2].partition('"')[0])
    assert picture == figure.render(figure.figure(numbers, ""), "svg")
    assert curve.verdict("probe") == numbers.verdicts["probe"].words
    assert curve.verdict().splitlines() == [f"{task}: {verdict.words}" for task, verdict in numbers.verdicts.items()]
    assert "probe: inverted U" in page


def test_a_curve_without_tasks_and_a_task_that_it_has_not_are_told(service: Service) -> None:
    empty = curve_of(service, trace(spec.Axis(path="views.sigma", values=(0.1, 0.2)), []))
    assert empty.verdict() == "no verdict yet: no task has been measured"
    assert len(empty.to_frame()) == 2 and empty._repr_html_()
    with pytest.raises(ValueError, match="no task 'nonsense' on this curve; it has probe, knn"):
        curve_of(service, traced()).plot("nonsense")
    with pytest.raises(ValueError, match="none yet"):
        empty.verdict("probe")


def sweep_that(state: str, step: int) -> Answer:
    counts = dict.fromkeys(("queued", "running", "cancelling", "succeeded", "failed", "cancelled"), 0) | {"total": 2}
    counts |= {"running": 1, "queued": 1} if state == "running" else {state: 2}
    progress = {"stage": "pretrain", "step": step, "total": 60, "rate": None, "eta_s": 30.0}
    member = {"id": "exp_1", "state": state, "value": 0.7, "seed": 0, "spec": {"axis": {"path": "views.sigma"}}}
    members = [member | {"progress": progress, "finished_at": None}]
    finished_at = None if state == "running" else "2026-01-01T00:00:00Z"
    found = {"id": "swp_1", "state": state, "counts": counts, "progress": progress, "experiments": members}
    return answer(200, found | {"spec": {"axis": {"path": "views.sigma"}}, "finished_at": finished_at})


def test_waiting_with_progress_draws_bars_on_a_terminal(service: Service) -> None:
    service.answers = [sweep_that("running", 10), sweep_that("succeeded", 60)]
    seen: list[str] = []
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Sweetspot(service.url) as client:
        found = progress.follow(client, "swp_1", console, on_change=lambda found: seen.append(found["state"]))
    assert found["state"] == "succeeded" and seen == ["running", "succeeded"]
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert "━" in drawn and "2 of 2 done" in drawn


def test_waiting_with_progress_prints_lines_elsewhere(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.answers = [sweep_that("running", 10), sweep_that("succeeded", 60)]
    with Sweetspot(service.url) as client:
        assert client.wait("swp_1", progress=True)["state"] == "succeeded"
    told = capsys.readouterr()
    assert told.err == "0 of 2 done, 1 running, about 30 s left\n2 of 2 done\n" and told.out == ""
    service.answers = [sweep_that("running", 10)]
    with Sweetspot(service.url) as client, pytest.raises(WaitTimeoutError):
        client.wait("swp_1", timeout=0, progress=True)


def test_what_an_experiment_left_can_be_fetched(service: Service) -> None:
    points = [{"name": "loss", "step": 1, "value": 5.5}]
    service.answers = [
        answer(200, {"data": points}),
        answer(200, {"data": points}),
        (200, {"Content-Type": "text/plain; charset=utf-8"}, "σ\n".encode()),
        (200, {"Content-Type": "text/plain"}, b"first"),
        answer(200, {"data": [{"name": "encoder.safetensors"}]}),
        (200, {}, b"weights"),
        (200, {}, b"\x89PNG"),
        answer(200, {"seed": 0}),
    ]
    with Sweetspot(service.url) as client:
        assert client.metrics("exp_1") == client.metrics("exp_1", "loss", "rate") == points
        assert (client.logs("exp_1"), client.logs("exp_1", attempt=1)) == ("σ\n", "first")
        assert client.artifacts("exp_1") == [{"name": "encoder.safetensors"}]
        assert client.artifact("exp_1", "a b/c") == b"weights"
        picture = client.views("exp_1")
        assert picture == picture._repr_png_() == b"\x89PNG"
        assert client.reproduce("exp_1") == {"seed": 0}
    assert [path.removeprefix("/v1/experiments/exp_1/") for _, path, _, _ in service.requests] == [
        "metrics",
        "metrics?name=loss&name=rate",
        "logs",
        "logs?attempt=1",
        "artifacts",
        "artifacts/a%20b%2Fc",
        "preview.png",
        "reproduce",
    ]


def test_the_client_loads_nothing_heavy() -> None:
    heavy = {"pandas", "altair", "vl_convert", "torch", "numpy", "scipy", "pydantic", "IPython"}
    code = f"import sys, app.client; print(sorted({heavy} & sys.modules.keys()))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_a_report_and_recipes_come_as_they_are(service: Service) -> None:
    service.answers = [(200, {}, b"<!doctype html>"), (200, {}, b"import torch\n"), answer(200, {"spec": {}})]
    with Sweetspot(service.url) as client:
        assert client.report("swp_1") == b"<!doctype html>"
        assert client.recipe("swp_1") == "import torch\n"
        assert client.recipe("swp_1", "json", task="knn") == {"spec": {}}
    assert [path for _, path, _, _ in service.requests] == [
        "/v1/sweeps/swp_1/report.html",
        "/v1/sweeps/swp_1/recipe?format=torchvision",
        "/v1/sweeps/swp_1/recipe?format=json&task=knn",
    ]


def test_events_go_on_after_the_last_one_when_the_stream_breaks(service: Service) -> None:
    def stream(*seqs: int, broken: bool = False) -> Answer:
        text = "".join(f'id: {seq}\nevent: stage\ndata: {{"seq": {seq}}}\n\n: still here\n\n' for seq in seqs)
        text += 'event: progress\ndata: {"step": 1}\n\n'
        length = {"Content-Length": str(len(text) + 10)} if broken else {}
        return 200, {"Content-Type": "text/event-stream", **length}, text.encode()

    service.answers = [
        stream(1, 2, broken=True),
        answer(200, {"state": "running"}),
        stream(3),
        answer(200, {"state": "succeeded"}),
        answer(200, {"data": []}),
    ]
    with Sweetspot(service.url) as client:
        events = list(client.events("exp_1"))
    assert [event.id for event in events if event.id] == [1, 2, 3]
    assert [event.data for event in events if event.type == "progress"] == [{"step": 1}] * 2
    assert [value for value in service.headers("Last-Event-ID") if value] == ["0", "2"]


def test_the_url_is_the_environments_else_the_running_services_else_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SWEETSPOT_URL", raising=False)
    url: Callable[[], str] = lambda: Sweetspot(data_dir=tmp_path).url  # noqa: E731
    usual = f"http://127.0.0.1:{settings().port}"
    assert url() == usual
    runtime.write(tmp_path, runtime.Runtime("http://127.0.0.1:1", "postgresql://", "redis://", 1))
    assert url() == usual, "a note that was left behind is not believed"
    with runtime.lock(runtime.lock_path(tmp_path)):
        assert url() == "http://127.0.0.1:1"
        monkeypatch.setenv("SWEETSPOT_URL", "http://elsewhere/")
        assert url() == "http://elsewhere"
