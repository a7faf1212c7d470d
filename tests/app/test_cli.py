"""The command line as a user runs it: what it prints, and its exit status."""

import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.cli import main
from app.settings import settings

SPEC = "dataset: {name: digits}\nviews: {kind: noise, sigma: 0.7}\n"


class Done(NamedTuple):
    status: int
    stdout: str
    stderr: str


Sweetspot = Callable[..., Done]


@pytest.fixture
def sweetspot(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Sweetspot]:
    """Runs the command line in this process, which is quicker than a new one for each command."""
    for name in ("DATABASE_URL", "REDIS_URL", "SWEETSPOT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str | Path, stdin: str = "") -> Done:
        settings.cache_clear()
        monkeypatch.setattr(sys, "argv", ["sweetspot", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as end:
            main()
        return Done(int(end.value.code or 0), *capsys.readouterr())

    yield run
    settings.cache_clear()


class Service:
    """A service that answers every request alike and remembers the bodies."""

    def __init__(self) -> None:
        self.status = 202
        self.answer: Any = {"id": "exp_1", "state": "queued"}
        self.bodies: list[Any] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service.bodies.append(json.loads(body) if body else None)
                content = service.answer if isinstance(service.answer, bytes) else json.dumps(service.answer).encode()
                self.send_response(service.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    thread = threading.Thread(target=service.server.serve_forever, args=(0.02,))
    thread.start()
    yield service
    service.server.shutdown()
    thread.join()
    service.server.server_close()


def test_help_lists_the_commands_and_loads_nothing_heavy(sweetspot: Sweetspot) -> None:
    shown = sweetspot("--help")
    assert shown.status == 0
    commands = ("up", "demo", "submit", "sweep", "preset", "presets", "status", "curve", "preview", "api", "worker", "migrate")
    assert all(f" {command} " in shown.stdout for command in commands)
    heavy = "{'torch', 'numpy', 'httpx', 'sqlalchemy', 'pydantic', 'yaml', 'psycopg', 'redis'}"
    code = f"import sys, app.cli; print(sorted({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_submit_sends_the_file_and_prints_the_id(sweetspot: Sweetspot, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(SPEC + "pretrain: {learning_rate: 1e-3}\n")
    done = sweetspot("submit", file, "--url", service.url)
    assert (done.status, done.stdout) == (0, "exp_1 queued\n")
    expected = {"dataset": {"name": "digits"}, "views": {"kind": "noise", "sigma": 0.7}, "pretrain": {"learning_rate": 0.001}}
    assert service.bodies == [expected]


def test_json_from_stdin_is_fine_too(sweetspot: Sweetspot, service: Service) -> None:
    done = sweetspot("sweep", "-", "--url", service.url, stdin='{"base": {}, "axis": {"values": [1e-1, 2]}}')
    assert done.status == 0
    assert service.bodies == [{"base": {}, "axis": {"values": [0.1, 2]}}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dataset: {name: digits\nviews: 3\n", "line 2, column 6"),
        ("- a\n- b\n", "mapping"),
        ("", "mapping"),
        ("a: \x00", "special characters"),
    ],
)
def test_a_file_that_is_no_spec_is_told_with_the_place(sweetspot: Sweetspot, tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    done = sweetspot("submit", file)
    assert done.status == 1
    assert str(file) in done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refusal_is_told_by_field(sweetspot: Sweetspot, service: Service) -> None:
    service.status = 422
    service.answer = {"title": "Invalid", "errors": [{"pointer": "/views/sigma", "message": "at least 0, not -1"}]}
    done = sweetspot("submit", "-", "--url", service.url, stdin=SPEC)
    assert done.status == 1
    assert done.stderr == "error: Invalid:\n  /views/sigma: at least 0, not -1\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit", "no-such-file.yaml"),
        ("submit",),
        ("curve", "swp_1", "-o", "curve.gif"),
        ("nonsense",),
        ("up", "--workers", "0"),
    ],
)
def test_wrong_usage_is_exit_status_2(sweetspot: Sweetspot, arguments: tuple[str, ...]) -> None:
    done = sweetspot(*arguments)
    assert done.status == 2
    assert "Usage" in done.stderr


@pytest.mark.parametrize("command", ["api", "worker", "migrate"])
def test_single_parts_need_servers(sweetspot: Sweetspot, command: str) -> None:
    done = sweetspot(command)
    assert done.status == 1
    assert "DATABASE_URL is not set" in done.stderr


def test_no_service_is_told_with_what_starts_it(sweetspot: Sweetspot) -> None:
    done = sweetspot("status", "exp_1", "--url", "http://127.0.0.1:9")
    assert done.status == 1
    assert "sweetspot up" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_shows_a_sweep(sweetspot: Sweetspot, service: Service) -> None:
    progress = {"stage": None, "step": 0, "total": None, "rate": None, "eta_s": None}
    member = {"seed": 4, "reused": False, "progress": progress}
    failed = {"id": "exp_1", "value": 0.25, "state": "failed", "error": {"code": "oom", "message": "no memory left"}, **member}
    queued = {"id": "exp_2", "value": 0.5, "state": "queued", "error": None, **member}
    times = {"created_at": "2026-01-01T00:00:00Z", "started_at": None, "finished_at": None}
    service.status = 200
    service.answer = {
        "id": "swp_1",
        "name": "noise",
        "state": "running",
        "counts": {"queued": 1, "failed": 1, "total": 2},
        **times,
    }
    lidar = {"rho": -0.857, "p": 0.0137, "points": 8}
    service.answer |= {"spec": {"axis": {"path": "views.sigma"}}, "experiments": [failed, queued]}
    service.answer |= {"predictors": {"knn": {"i_nce": None, "lidar": lidar}}}  # as its curve has them
    verdict = {"metric": "accuracy", "words": "unclear: so far 0 trainings at 0 values; a verdict takes 10 at 5"}
    service.answer |= {"axis": {"path": "views.sigma"}, "points": [], "verdicts": {"knn": verdict}}
    done = sweetspot("status", "swp_1", "--url", service.url)
    assert done.status == 0
    words = ("swp_1", "noise", "views.sigma", "0.25", "no memory left", "exp_2", "1 queued, 1 failed, 2 total", "lidar", "-0.86")
    for word in (*words, f"knn: {verdict['words']}"):
        assert word in done.stdout
    assert json.loads(sweetspot("status", "swp_1", "--json", "--url", service.url).stdout) == service.answer


def test_work_is_stopped_and_begun_anew(sweetspot: Sweetspot, service: Service) -> None:
    service.answer = {"id": "swp_1", "state": "cancelling"}
    assert sweetspot("cancel", "swp_1", "--url", service.url).stdout == "swp_1 is cancelling\n"
    service.answer = {"id": "swp_1", "state": "queued"}
    assert sweetspot("retry", "swp_1", "--url", service.url).stdout == "swp_1 queued\n"


def test_a_preset_is_run_in_the_size_asked_for(sweetspot: Sweetspot, service: Service) -> None:
    service.answer = {"id": "swp_1", "state": "queued"}
    asked = ("preset", "fig5-crop", "--size", "quick", "--dataset", "digits", "--seed", "4")
    done = sweetspot(*asked, "--url", service.url)
    assert (done.status, done.stdout) == (0, "swp_1 queued\n")
    assert sweetspot("preset", "fig5-crop", "--url", service.url).status == 0
    assert service.bodies == [{"size": "quick", "dataset": "digits", "seed": 4}, {}]
    assert sweetspot("preset", "fig5-crop", "--size", "huge", "--url", service.url).status == 2


def test_presets_are_listed_with_their_sizes_and_what_those_take(sweetspot: Sweetspot, service: Service) -> None:
    service.status = 200
    cost = {"trainings": 14, "seconds": 290.0, "basis": "reference rates"}
    quick = {"trainings": 14, "cost": cost, "reason": None, "differs": "small"}
    full = {"trainings": 21, "cost": None, "reason": "'stl10' is not there", "differs": "large"}
    crop = {"name": "fig5-crop", "description": "How small?", "sizes": {"quick": quick, "full": full}}
    service.answer = {"data": [crop]}
    done = sweetspot("presets", "--url", service.url)
    assert done.status == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["fig5-crop", "quick", "14", "5", "min", "How", "small?"] in rows
    assert "[full: 'stl10' is not there]" in done.stdout


def test_a_curve_is_written_in_the_format_of_its_suffix(sweetspot: Sweetspot, service: Service, tmp_path: Path) -> None:
    service.status, service.answer = 200, b"<svg/>"
    assert sweetspot("curve", "swp_1", "-o", tmp_path / "c.svg", "--url", service.url).status == 0
    assert (tmp_path / "c.svg").read_bytes() == b"<svg/>"
    service.answer = {"points": []}
    assert sweetspot("curve", "swp_1", "-o", tmp_path / "c.json", "--url", service.url).status == 0
    assert json.loads((tmp_path / "c.json").read_text()) == {"points": []}


def test_a_report_is_written_as_it_comes(sweetspot: Sweetspot, service: Service, tmp_path: Path) -> None:
    service.status, service.answer = 200, b"<!doctype html>"
    assert sweetspot("report", "swp_1", "-o", tmp_path / "r.html", "--url", service.url).status == 0
    assert (tmp_path / "r.html").read_bytes() == b"<!doctype html>"


def test_a_recipe_is_printed_or_written(sweetspot: Sweetspot, service: Service, tmp_path: Path) -> None:
    service.status, service.answer = 200, b"import torch\n"
    done = sweetspot("recipe", "swp_1", "--url", service.url)
    assert (done.status, done.stdout) == (0, "import torch\n")
    file = tmp_path / "recipe.py"
    assert sweetspot("recipe", "swp_1", "--format", "lightly", "-o", file, "--url", service.url).stdout == f"{file}\n"
    assert file.read_text() == "import torch\n"
    service.answer = {"spec": {"seed": 0}}
    done = sweetspot("recipe", "swp_1", "--format", "json", "--task", "knn", "--url", service.url)
    assert json.loads(done.stdout) == service.answer["spec"]
    assert sweetspot("recipe", "swp_1", "--format", "keras").status == 2


def test_a_preview_takes_the_dataset_and_the_views_of_a_spec(sweetspot: Sweetspot, service: Service, tmp_path: Path) -> None:
    service.status, service.answer = 200, b"PNG"
    output = tmp_path / "out.png"
    assert sweetspot("preview", "-", "-o", output, "--url", service.url, stdin=SPEC + "seed: 3\n").status == 0
    assert service.bodies == [{"dataset": {"name": "digits"}, "views": {"kind": "noise", "sigma": 0.7}}]
    assert output.read_bytes() == b"PNG"
    done = sweetspot("preview", "-", "--url", service.url, stdin="seed: 3\n")
    assert done.status == 1
    assert "needs `dataset` and `views`" in done.stderr
