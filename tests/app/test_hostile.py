"""What a stranger may send: each oddity gets its 4xx as a problem, with the field at fault and nothing of our insides."""

import asyncio
import io
import json
import re
import resource
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app import rates
from app.main import create_app
from app.persistence import files
from app.persistence.database import open_session
from app.persistence.models import Dataset, Experiment, MiEstimate, Sweep
from app.settings import settings

Json = dict[str, Any]
Refused = tuple[str, str, Json, int, str | None]
"""Method, path, the rest of the request, the status, and the pointer of the field that is named; None: there is none."""
DIGITS: Json = {"dataset": {"name": "digits"}, "views": {"kind": "noise", "sigma": 0.7}}
AXIS: Json = {"path": "views.sigma", "values": [0.5]}
JSON_TYPE = {"Content-Type": "application/json"}
FORM_TYPE = {"Content-Type": "multipart/form-data; boundary=b"}
EXPERIMENTS, SWEEPS, PREVIEWS, DATASETS = "/v1/experiments", "/v1/sweeps", "/v1/previews", "/v1/datasets"
ESTIMATES, CHECKPOINTS = "/v1/mi-estimates", "/v1/checkpoints"
EXPERIMENT, SWEEP = f"{EXPERIMENTS}/EXPERIMENT", f"{SWEEPS}/SWEEP"  # those that there are
NOTHING = "0" * 32
ROOT = Path(__file__).parents[2]


def body(content: str | bytes) -> Json:
    return {"content": content, "headers": JSON_TYPE}


def spec(**fields: Any) -> Json:
    return body(json.dumps(DIGITS | fields))


def sweep(**fields: Any) -> Json:
    return body(json.dumps({"base": DIGITS, "axis": AXIS} | fields))


def form(content: str | bytes, boundary: str = "b") -> Json:
    raw = content if isinstance(content, bytes) else content.encode("latin-1")
    return {"content": raw, "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"}}


def part(disposition: str, content: str = "x") -> str:
    return f"--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n"


def headers(**given: str | bytes) -> Json:
    return {"headers": {name.replace("_", "-"): value for name, value in given.items()}}


def npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def npy(header: bytes, content: bytes = b"", length: int | None = None) -> bytes:
    """An array's file of version 2 with this header, which may lie about its own length."""
    return b"\x93NUMPY\x02\x00" + (len(header) if length is None else length).to_bytes(4, "little") + header + content


def arrays(x: bytes, **more: Any) -> Json:
    return {"files": {"file": ("a.npz", zipped({"x.npy": x, "y.npy": npy(shaped("(64, 2)", "<f4"), bytes(512))}, **more))}}


def shaped(shape: str, dtype: str) -> bytes:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()


def weights(header: bytes, length: int | None = None, content: bytes = b"\0") -> Json:
    size = len(header) if length is None else length
    return {"files": {"file": ("w.safetensors", size.to_bytes(8, "little") + header + content)}}


def nested(depth: int) -> str:
    return f'{{"dataset": {"[" * depth}{"]" * depth}, "views": {{"kind": "noise"}}}}'


WRONG_JSON: dict[str, Refused] = {
    "no JSON at all": ("POST", EXPERIMENTS, body("{"), 422, ""),
    "an empty body": ("POST", EXPERIMENTS, body(""), 422, ""),
    "NaN": (
        "POST",
        EXPERIMENTS,
        body('{"dataset": {"name": "digits"}, "views": {"kind": "noise", "sigma": NaN}}'),
        422,
        "/views/sigma",
    ),
    "Infinity": ("POST", EXPERIMENTS, spec(limits={"seconds": float("inf")}), 422, "/limits/seconds"),
    "1e999": (
        "POST",
        EXPERIMENTS,
        body('{"dataset": {"name": "digits"}, "views": {"kind": "noise", "sigma": 1e999}}'),
        422,
        "/views/sigma",
    ),
    "a number of 400 digits": ("POST", EXPERIMENTS, spec(seed=10**400), 422, "/seed"),
    "a number of 4300 digits as a budget": (
        "POST",
        EXPERIMENTS,
        spec(tasks=[{"kind": "classification", "labels_per_class": 10**4299}]),
        422,
        "/tasks/0/labels_per_class",
    ),
    "a number of 5000 digits": ("POST", EXPERIMENTS, body('{"seed": ' + "9" * 5000 + "}"), 400, None),
    "a name that comes twice": ("POST", EXPERIMENTS, body('{"seed": 1, "seed": 2, "dataset": {"name": "digits"}}'), 422, "/seed"),
    "a name that comes twice deeper": (
        "POST",
        EXPERIMENTS,
        body('{"dataset": {"name": "digits"}, "views": {"kind": "noise", "kind": "crop"}}'),
        422,
        "/views/kind",
    ),
    "forty lists in each other": ("POST", EXPERIMENTS, body(nested(40)), 422, "/dataset" + "/0" * 31),
    "a hundred thousand lists in each other": ("POST", EXPERIMENTS, body(nested(100_000)), 400, None),
    "bytes that are no UTF-8": ("POST", EXPERIMENTS, body(b'{"name": "\xff\xfe"}'), 400, None),
    "half of UTF-16": ("POST", EXPERIMENTS, body("{".encode("utf-16")[:-1]), 400, None),
    "half a surrogate pair": ("POST", EXPERIMENTS, body('{"name": "\\ud800", "dataset": {"name": "digits"}}'), 422, "/name"),
    "half a surrogate pair as a name": ("POST", EXPERIMENTS, body('{"\\udfff": 1}'), 422, ""),
    "an escape of the terminal": ("POST", EXPERIMENTS, spec(name="\x1b[2J"), 422, "/name"),
    "NUL": ("POST", EXPERIMENTS, spec(name="a\0b"), 422, "/name"),
    "a list": ("POST", EXPERIMENTS, body("[]"), 422, ""),
    "null": ("POST", EXPERIMENTS, body("null"), 422, ""),
    "a string": ("POST", EXPERIMENTS, body('"digits"'), 422, ""),
    "gzip": ("POST", EXPERIMENTS, {"content": b"\x1f\x8b\x08", "headers": JSON_TYPE | {"Content-Encoding": "gzip"}}, 415, None),
    "a body of four megabytes": ("POST", EXPERIMENTS, body(" " * (4 * 2**20 + 1)), 413, None),
    "a form for JSON": ("POST", EXPERIMENTS, form("--b--\r\n"), 415, None),
    "text": ("POST", EXPERIMENTS, {"content": "{}", "headers": {"Content-Type": "text/plain; charset=x"}}, 415, None),
}

SPECS: dict[str, Refused] = {
    "a dataset elsewhere": ("POST", EXPERIMENTS, spec(dataset={"name": "../../etc"}), 422, "/dataset/name"),
    "a dataset at the root": ("POST", EXPERIMENTS, spec(dataset={"name": "/etc/passwd"}), 422, "/dataset/name"),
    "a dataset as a URL": ("POST", EXPERIMENTS, spec(dataset={"name": "http://169.254.169.254/"}), 422, "/dataset/name"),
    "a dataset by a pattern": ("POST", EXPERIMENTS, spec(dataset={"name": "**"}), 422, "/dataset/name"),
    "a dataset in an upload's folder": (
        "POST",
        EXPERIMENTS,
        spec(dataset={"name": "ds_..", "image_size": 8}),
        422,
        "/dataset/name",
    ),
    "backgrounds elsewhere": (
        "POST",
        EXPERIMENTS,
        spec(dataset={"name": "moving_mnist", "backgrounds": "../x"}, views={"kind": "temporal"}),
        422,
        "/dataset/backgrounds",
    ),
    "a task's dataset elsewhere": (
        "POST",
        EXPERIMENTS,
        spec(tasks=[{"kind": "knn", "dataset": {"name": "..\\..\\x"}}]),
        422,
        "/tasks/0/dataset/name",
    ),
    "weights as a path": (
        "POST",
        EXPERIMENTS,
        spec(encoder={"kind": "resnet18", "weights": "/etc/passwd"}),
        422,
        "/encoder/weights",
    ),
    "weights as a URL": (
        "POST",
        EXPERIMENTS,
        spec(encoder={"kind": "resnet18", "weights": "file:///x"}),
        422,
        "/encoder/weights",
    ),
    "weights that nobody has": (
        "POST",
        EXPERIMENTS,
        spec(encoder={"kind": "resnet18", "weights": "ckp_" + "0" * 64}),
        422,
        "/encoder/weights",
    ),
    "a webhook": ("POST", EXPERIMENTS, spec(webhook="http://localhost:6379/"), 422, "/webhook"),
    "steps for a thousand years": ("POST", EXPERIMENTS, spec(pretrain={"steps": 10**12}), 422, "/pretrain/steps"),
    "a batch of everything there is": ("POST", EXPERIMENTS, spec(pretrain={"batch_size": 10**6}), 422, "/pretrain/batch_size"),
    "images of a kilometre": (
        "POST",
        EXPERIMENTS,
        spec(dataset={"name": "digits", "image_size": 10**6}),
        422,
        "/dataset/image_size",
    ),
    "more memory than there is": (
        "POST",
        EXPERIMENTS,
        spec(dataset={"name": "digits", "image_size": 256}, encoder={"kind": "resnet50"}, pretrain={"batch_size": 1000}),
        422,
        "/pretrain/batch_size",
    ),
    "K of a million": ("POST", EXPERIMENTS, spec(mi={"k": 10**6}), 422, "/mi/k"),
    "the same estimator a hundred times": ("POST", EXPERIMENTS, spec(mi={"estimators": ["nwj"] * 100}), 422, "/mi/estimators"),
    "seventeen tasks": ("POST", EXPERIMENTS, spec(tasks=[{"kind": "knn", "name": str(n)} for n in range(17)]), 422, "/tasks"),
    "thirty-three tags": ("POST", EXPERIMENTS, spec(tags=[str(number) for number in range(33)]), 422, "/tags"),
    "a tag of a page": ("POST", EXPERIMENTS, spec(tags=["x" * 61]), 422, "/tags/0"),
    "a name of a page": ("POST", EXPERIMENTS, spec(name="x" * 201), 422, "/name"),
    "an SQL priority": ("POST", EXPERIMENTS, spec(priority="1; DROP TABLE experiments"), 422, "/priority"),
    "a kind that is no kind": ("POST", EXPERIMENTS, spec(views={"kind": "__class__"}), 422, "/views/kind"),
    "a kind that is no text": ("POST", EXPERIMENTS, spec(views={"kind": ["noise"]}), 422, "/views/kind"),
    "a kind in a preview": ("POST", PREVIEWS, body(json.dumps(DIGITS | {"views": {"kind": "eval"}})), 422, "/views/kind"),
}

SWEEP_SPECS: dict[str, Refused] = {
    "an axis along __class__": ("POST", SWEEPS, sweep(axis=AXIS | {"path": "__class__"}), 422, "/axis/path"),
    "an axis along a method": ("POST", SWEEPS, sweep(axis=AXIS | {"path": "views.__init__"}), 422, "/axis/path"),
    "an axis along globals": ("POST", SWEEPS, sweep(axis=AXIS | {"path": "views.__init__.__globals__"}), 422, "/axis/path"),
    "an axis along a huge index": ("POST", SWEEPS, sweep(axis=AXIS | {"path": "tasks." + "9" * 190}), 422, "/axis/path"),
    "an axis into a text": ("POST", SWEEPS, sweep(axis=AXIS | {"path": "dataset.name.0"}), 422, "/axis/path"),
    "an axis of a page": ("POST", SWEEPS, sweep(axis=AXIS | {"path": "views" + ".a" * 100}), 422, "/axis/path"),
    "a hundred thousand values": ("POST", SWEEPS, sweep(axis=AXIS | {"values": [*range(100_000)]}), 422, "/axis/values"),
    "a billion seeds": ("POST", SWEEPS, sweep(seeds=10**9), 422, "/seeds"),
    "seeds times values": ("POST", SWEEPS, sweep(axis=AXIS | {"values": [*range(101)]}, seeds=10), 422, ""),
    "a value of 4300 digits": ("POST", SWEEPS, sweep(axis=AXIS | {"values": [10**4299]}), 422, "/axis/values/0"),
    "a search over all numbers": (
        "POST",
        SWEEPS,
        sweep(axis={"path": "views.sigma", "search": {"low": 1, "high": 1.7976931348623157e308, "scale": "log"}}),
        422,
        "/axis/search",
    ),
    "a search in steps of nothing": (
        "POST",
        SWEEPS,
        sweep(axis={"path": "views.sigma", "search": {"low": 0, "high": 1, "step": 5e-324}}),
        422,
        "/axis/search",
    ),
    "a search between neighbours": (
        "POST",
        SWEEPS,
        sweep(axis={"path": "views.sigma", "search": {"low": 0, "high": 5e-324}}),
        422,
        "/axis/search",
    ),
    "a preset that is a path": ("POST", SWEEPS, sweep(preset="../../x/quick"), 422, "/preset"),
    "a preset that is not there": ("POST", "/v1/presets/..%2f..%2fetc/run", {}, 404, None),
}

UPLOADS: dict[str, Refused] = {
    "a file for a pickle": ("POST", CHECKPOINTS, {"files": {"file": b"\x80\x04cos\nsystem\n(S'id'\ntR."}}, 422, "/file"),
    "a checkpoint with a header of terabytes": ("POST", CHECKPOINTS, weights(b"{}", length=2**62), 422, "/file"),
    "a checkpoint whose header is no JSON": ("POST", CHECKPOINTS, weights(b"[" * 100_000), 422, "/file"),
    "a checkpoint of a giant tensor": (
        "POST",
        CHECKPOINTS,
        weights(b'{"w": {"dtype": "F64", "shape": [9223372036854775807, 8], "data_offsets": [0, 1]}}'),
        422,
        "/file",
    ),
    "a checkpoint that reads before its file": (
        "POST",
        CHECKPOINTS,
        weights(b'{"w": {"dtype": "U8", "shape": [1], "data_offsets": [-1, 0]}}'),
        422,
        "/file",
    ),
    "a zip that is no checkpoint": ("POST", CHECKPOINTS, {"files": {"file": zipped({"a/b": b"x"})}}, 422, "/file"),
    "an array of Python objects": (
        "POST",
        ESTIMATES,
        {"files": {"file": npz(x=np.array([{}] * 64), y=np.eye(64))}},
        422,
        "/file",
    ),
    "an array that claims to be giant": ("POST", ESTIMATES, arrays(npy(shaped("(64, 2000000)", "<f8"))), 422, "/file"),
    "an array of no numbers that is giant": ("POST", ESTIMATES, arrays(npy(shaped("(99999999999, 0)", "<f8"))), 422, "/file"),
    "an array of negative size": ("POST", ESTIMATES, arrays(npy(shaped("(-64, -2)", "<f8"))), 422, "/file"),
    "an array whose header is code": ("POST", ESTIMATES, arrays(npy(b"__import__('os').system('id')")), 422, "/file"),
    "an array whose header is a bomb": (
        "POST",
        ESTIMATES,
        arrays(npy(b"", bytes(2**28), length=2**28), method=zipfile.ZIP_DEFLATED),
        422,
        "/file",
    ),
    "an array that is a tar": ("POST", ESTIMATES, {"files": {"file": b"ustar" * 200}}, 422, "/file"),
    "a form without a boundary": (
        "POST",
        DATASETS,
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        400,
        None,
    ),
    "a form that is JSON": ("POST", DATASETS, body("{}"), 415, None),
    "a form that never ends": ("POST", DATASETS, form(part('name="file"')), 400, None),
    "a part without a name": ("POST", DATASETS, form(part("x=y") + "--b--\r\n"), 400, None),
    "ten thousand parts": ("POST", DATASETS, form(part('name="name"') * 10_000 + "--b--\r\n"), 422, "/name"),
    "a field of a megabyte": ("POST", DATASETS, form(part('name="name"', "x" * 2**20) + "--b--\r\n"), 400, None),
    "a file's name with NUL": ("POST", DATASETS, form(part('name="file"; filename="a\0b.zip"') + "--b--\r\n"), 422, "/file"),
    "a field's name that is code": (
        "POST",
        DATASETS,
        form(part('name="../../<script>"') + "--b--\r\n"),
        422,
        "/..~1..~1<script>",
    ),
    "a layout that is a path": ("POST", DATASETS, {"data": {"layout": "../x"}, "files": {"file": b"PK"}}, 422, "/layout"),
}

ADDRESSES: dict[str, Refused] = {
    "an id that is SQL": ("GET", f"{EXPERIMENTS}/exp_'%20OR%201=1--", {}, 404, "path/id"),
    "an id with NUL": ("GET", f"{EXPERIMENTS}/exp_%00{NOTHING[:-1]}", {}, 404, "path/id"),
    "an id of eight kilobytes": ("GET", f"{EXPERIMENTS}/exp_{'0' * 8192}", {}, 404, "path/id"),
    "an artifact elsewhere": ("GET", f"{EXPERIMENT}/artifacts/..%2f..%2f..%2fetc%2fpasswd", {}, 404, None),
    "an artifact elsewhere, encoded twice": ("GET", f"{EXPERIMENT}/artifacts/..%252f..%252fpasswd", {}, 404, None),
    "an artifact at the root": ("GET", f"{EXPERIMENT}/artifacts/%2fetc%2fpasswd", {}, 404, None),
    "an artifact above": ("GET", f"{EXPERIMENT}/artifacts/%2e%2e", {}, 404, None),
    "an artifact with NUL": ("GET", f"{EXPERIMENT}/artifacts/preview.png%00.txt", {}, 404, "path/name"),
    "an artifact that was not listed": ("GET", f"{EXPERIMENT}/artifacts/log.txt", {}, 404, None),
    "the log of another attempt": ("GET", f"{EXPERIMENT}/logs?attempt=..%2f1", {}, 422, "query/attempt"),
    "a static file elsewhere": ("GET", "/static/..%2f..%2fapp%2fsettings.py", {}, 404, None),
    "a static file at the root": ("GET", "/static//etc/passwd", {}, 404, None),
    "a static file with NUL": ("GET", "/static/a%00.js", {}, 404, None),
    "a static file of a long name": ("GET", f"/static/{'x' * 5000}", {}, 404, None),
    "a static folder": ("GET", "/static/", {}, 404, None),
    "a checkpoint elsewhere": ("GET", f"{CHECKPOINTS}/..%2f..%2fetc%2fpasswd", {}, 404, None),
    "a checkpoint that is no hash": ("DELETE", f"{CHECKPOINTS}/ckp_{'../' * 21}x", {}, 404, None),
    "a curve in a format of one's own": ("GET", f"{SWEEP}/curve.html", {}, 404, "path/format"),
    "a catalog of everything": ("GET", "/v1/catalog/..", {}, 404, None),
    "a page of a billion": ("GET", f"{EXPERIMENTS}?limit=1000000000", {}, 422, "query/limit"),
    "a page of minus one": ("GET", f"{EXPERIMENTS}?limit=-1", {}, 422, "query/limit"),
    "a page of 5000 digits": ("GET", f"{EXPERIMENTS}?limit={'9' * 5000}", {}, 422, "query/limit"),
    "a cursor that is SQL": ("GET", f"{EXPERIMENTS}?cursor=';DROP%20TABLE%20experiments;--", {}, 422, "query/cursor"),
    "a cursor with a line break": ("GET", f"{EXPERIMENTS}?cursor=exp_{NOTHING}%0a", {}, 422, "query/cursor"),
    "a cursor of the events that overflows": ("GET", f"{EXPERIMENT}/events?cursor=9223372036854775808", {}, 422, "query/cursor"),
    "a search with NUL": ("GET", f"{EXPERIMENTS}?q=%00", {}, 422, "query/q"),
    "a search of a page": ("GET", f"{EXPERIMENTS}?q={'x' * 201}", {}, 422, "query/q"),
    "a state that is no state": ("GET", f"{EXPERIMENTS}?state=%7B%7B7*7%7D%7D", {}, 422, "query/state"),
    "a time before time": ("GET", f"{EXPERIMENTS}?created_after=-1e300", {}, 422, "query/created_after"),
    "a time that is code": ("GET", f"{EXPERIMENTS}?created_after=now()", {}, 422, "query/created_after"),
    "metrics of fifty names": ("GET", f"{EXPERIMENT}/metrics?{'&'.join(['name=x'] * 50)}", {}, 422, "query/name"),
    "a metric with NUL": ("GET", f"{EXPERIMENT}/metrics?name=%00", {}, 422, "query/name/0"),
    "a task of a page": ("GET", f"{SWEEP}/curve?task={'x' * 61}", {}, 422, "query/task"),
    "a task with NUL": ("GET", f"{SWEEP}/curve?task=%00", {}, 422, "query/task"),
    "a recipe for a shell": ("GET", f"{SWEEP}/recipe?format=sh", {}, 422, "query/format"),
    "a method of one's own": ("BREW", EXPERIMENTS, {}, 405, None),
    "TRACE": ("TRACE", EXPERIMENTS, {}, 405, None),
    "a PUT of a static file": ("PUT", "/static/app.js", {}, 405, None),
}

HEADERS: dict[str, Refused] = {
    "a key of a page": (
        "POST",
        EXPERIMENTS,
        {"json": DIGITS, **headers(Idempotency_Key="x" * 201)},
        422,
        "header/idempotency-key",
    ),
    "a key that is empty": ("POST", EXPERIMENTS, {"json": DIGITS, **headers(Idempotency_Key="")}, 422, "header/idempotency-key"),
    "a key with a NUL": ("POST", EXPERIMENTS, {"json": DIGITS, **headers(Idempotency_Key="a\0b")}, 422, "header/idempotency-key"),
    "a key in Latin": ("POST", EXPERIMENTS, {"json": DIGITS, **headers(Idempotency_Key=b"\xe9")}, 422, "header/idempotency-key"),
    "an event before the first": ("GET", f"{EXPERIMENT}/events", headers(Last_Event_ID="-1"), 422, "header/last-event-id"),
    "an event that is text": ("GET", f"{EXPERIMENT}/events", headers(Last_Event_ID="x"), 422, "header/last-event-id"),
    "a range beyond the end": ("GET", f"{EXPERIMENT}/artifacts/data.bin", headers(Range="bytes=1000-2000"), 416, None),
    "a range beyond all numbers": (
        "GET",
        f"{EXPERIMENT}/artifacts/data.bin",
        headers(Range=f"bytes={'9' * 4000}-"),
        416,
        None,
    ),
}


AUTHORIZATIONS: dict[str, list[tuple[str, str | bytes]]] = {
    "nothing in it": [("Authorization", "")],
    "no key in it": [("Authorization", "Bearer")],
    "an empty key": [("Authorization", "Bearer  ")],
    "another scheme": [("Authorization", "Basic YWRtaW46YWRtaW4=")],
    "a scheme of one's own": [("Authorization", "Negotiate\ttoken")],
    "a key of a shape that none has": [("Authorization", "Bearer admin")],
    "a key that nobody has": [("Authorization", f"Bearer ssk_{'A' * 43}")],
    "a key of ten kilobytes": [("Authorization", f"Bearer ssk_{'A' * 10_000}")],
    "NUL": [("Authorization", b"Bearer ssk_\0")],
    "no ASCII": [("Authorization", b"Bearer \xff\xfe\xe9")],
    "two of them": [("Authorization", f"Bearer ssk_{'A' * 43}"), ("Authorization", "Bearer x")],
    "SQL": [("Authorization", "Bearer ' OR 1=1; DROP TABLE api_keys; --")],
    "a comma and another": [("Authorization", f"Bearer ssk_{'A' * 43}, Basic eDp5")],
    "a cookie that nobody has": [("Cookie", f"sweetspot_session={'A' * 43}")],
    "a cookie of ten kilobytes": [("Cookie", f"sweetspot_session={'A' * 10_000}")],
    "a cookie that is no cookie": [("Cookie", b'sweetspot_session="\0\xff; ;;=')],
}


@pytest.mark.parametrize("where", [EXPERIMENTS, f"{DATASETS}/../experiments", "/metrics"])
@pytest.mark.parametrize("case", AUTHORIZATIONS)
def test_who_has_no_good_key_is_told_that_it_takes_one(remote: Any, case: str, where: str) -> None:
    rates.failures.cache_clear()
    given: Any = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in AUTHORIZATIONS[case]]
    answer = remote().request("POST" if where != "/metrics" else "GET", where, headers=given, json=DIGITS)
    if answer.status_code == 303:  # a browser is led to where it can sign in
        assert where == "/metrics" and answer.headers["Location"].startswith("/sign-in?")
        return
    refused(answer, 401, None)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert rows() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "origin", ["http://[", "null", "http://evil.example", "http://127.0.0.1:8000.evil.example", "\x7f", "http://a:b:c"]
)
def test_a_page_of_another_site_changes_nothing(api: TestClient, origin: str) -> None:
    answer = api.post(EXPERIMENTS, json=DIGITS, headers={"Origin": origin})
    refused(answer, 403, None)
    assert rows() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("path", "client", "status", "location"),
    [
        ("/v1/experiments", "203.0.113.7", 401, None),
        ("/compare", "203.0.113.7", 303, b"/sign-in?next=/compare%3Fa%3D%FF"),
        ("/v1/experiments", "127.0.0.1", 200, None),
    ],
)
def test_a_query_that_is_no_utf_8_is_borne(database: Any, path: str, client: str, status: int, location: bytes | None) -> None:
    """Clients encode it, and some servers pass on what comes."""
    scope: Json = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"a=\xff",
        "headers": [(b"host", b"127.0.0.1:8000")],
        "client": (client, 50000),
        "server": ("127.0.0.1", 8000),
    }
    sent: list[Json] = []

    async def receive() -> Json:
        return {"type": "http.request"}

    async def send(message: Json) -> None:
        sent.append(message)

    asyncio.run(create_app()(scope, receive, send))  # type: ignore[arg-type]
    assert (sent[0]["status"], dict(sent[0]["headers"]).get(b"location")) == (status, location)


@pytest.fixture
def there(api: TestClient, work: Any) -> dict[str, str]:
    """What there is to be attacked: a finished experiment with files, and a finished sweep."""
    experiment = api.post(EXPERIMENTS, json=DIGITS).json()["id"]
    claim = work.claimed()
    work.succeed(claim, artifacts={"preview.png": b"\x89PNG\r\n\x1a\n", "data.bin": b"0123456789"})
    made = api.post(SWEEPS, json={"base": DIGITS | {"seed": 7}, "axis": AXIS, "seeds": 1}).json()["id"]
    work.finish_all(lambda _: (1.0, 0.5))
    return {"EXPERIMENT": experiment, "SWEEP": made}


def rows() -> list[int]:
    with open_session() as session:
        return [
            session.scalar(select(func.count()).select_from(model)) or 0 for model in (Experiment, Sweep, Dataset, MiEstimate)
        ]


LEAKS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|sqlalchemy|psycopg|SELECT |INSERT |UPDATE |/root|/home", re.IGNORECASE
)


def refused(answer: Any, status: int, pointer: str | None) -> None:
    """It is a problem document of this status that names the field, and tells nothing of our insides."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and problem["request_id"] == answer.headers["X-Request-Id"]
    pointers = [error["pointer"] for error in problem["errors"]]
    assert pointer in pointers if pointer is not None else not pointers, problem["errors"]
    assert not LEAKS.search(answer.text), answer.text[:500]
    assert str(settings().data_dir) not in answer.text and len(answer.content) < 20_000


TABLES = [WRONG_JSON, SPECS, SWEEP_SPECS, UPLOADS, ADDRESSES, HEADERS]
CASES = [pytest.param(*row, id=words) for table in TABLES for words, row in table.items()]


@pytest.mark.parametrize(("method", "path", "request_", "status", "pointer"), CASES)
def test_what_is_hostile_is_refused(
    api: TestClient, there: dict[str, str], method: str, path: str, request_: Json, status: int, pointer: str | None
) -> None:
    before = rows()
    for name, known in there.items():
        path = path.replace(name, known)
    refused(api.request(method, path, **request_), status, pointer)
    assert rows() == before


@pytest.mark.parametrize(
    "case", ["bytes=9-", "bytes=0-0,4-5", "bytes=x", "lines=1-2", "bytes=", "=", "bytes=5-1", "bytes=" + "0-1," * 1000]
)
def test_a_range_is_served_or_passed_over(api: TestClient, there: dict[str, str], case: str) -> None:
    answer = api.get(f"{EXPERIMENTS}/{there['EXPERIMENT']}/artifacts/data.bin", headers={"Range": case})
    assert answer.status_code in (200, 206) and len(answer.content) < 1000
    assert api.get("/static/style.css", headers={"Range": case}).status_code == 200


def test_a_link_in_the_artifacts_folder_leads_nowhere(api: TestClient, there: dict[str, str], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = files.attempt_folder(there["EXPERIMENT"], 1) / "data.bin"
    path.unlink()
    path.symlink_to(secret)
    refused(api.get(f"{EXPERIMENTS}/{there['EXPERIMENT']}/artifacts/data.bin"), 404, None)
    (path.parent / "log.txt").symlink_to(secret)
    assert "secret" not in api.get(f"{EXPERIMENTS}/{there['EXPERIMENT']}/logs").text


def test_an_array_s_header_is_not_unpacked_into_memory(api: TestClient) -> None:
    bomb = zipped({"x.npy": npy(b"", bytes(2**29), length=2**29), "y.npy": b""}, zipfile.ZIP_DEFLATED)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(api.post(ESTIMATES, files={"file": bomb}), 422, "/file")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("path", [ESTIMATES, CHECKPOINTS])
def test_a_zip_s_directory_is_not_read_into_memory(api: TestClient, path: str) -> None:
    end = struct.pack("<HHHHIIH", 0, 0, 9, 9, 50_000_000, 4, 0)
    refused(api.post(path, files={"file": b"PK\x03\x04" + bytes(50_000_000) + b"PK\x05\x06" + end}), 422, "/file")


def test_a_checkpoint_whose_members_share_their_bytes_is_refused(api: TestClient) -> None:
    content = bytearray(zipped({"a/data.pkl": bytes(100), "a/data/0": bytes(5000), "a/data/1": b""}))
    at = content.rindex(b"PK\x01\x02")  # of the last one, which then has the bytes of the one before
    first = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    content[at + 16 : at + 28] = content[first + 16 : first + 28]
    problem = api.post(CHECKPOINTS, files={"file": bytes(content)})
    refused(problem, 422, "/file")
    assert "overlap" in problem.json()["detail"]


@pytest.mark.parametrize("code", ["app", "ml", "workers"])
def test_nobody_fetches_what_a_client_names(code: str) -> None:
    """Only the user's own commands do, and the download of datasets that a user calls."""
    fetching = re.compile(r"^\s*(?:import|from) (?:httpx|requests|urllib\.request|aiohttp|http\.client)\b", re.MULTILINE)
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / code).rglob("*.py") if fetching.search(path.read_text())}
    assert found <= {"app/client.py", "app/cli.py", "app/demo.py", "app/up.py", "app/keys_cli.py", "ml/datasets/download.py"}
