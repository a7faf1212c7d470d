"""`/v1/mi-estimates`: what is asked of two arrays, what is refused, and what is answered. The numbers are the worker's."""

import io
import os
import pickle
import re
import struct
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient

from app.cli import main
from app.client import ConflictError, InvalidError, Sweetspot
from app.embedded import Servers, free_port
from app.main import create_app
from app.persistence import files, leases, mi_estimates
from app.persistence.leases import Claim
from app.settings import settings
from ml import spec

Json = dict[str, Any]
Ask = Callable[..., Json]
NOWHERE = f"mie_{'0' * 32}"
PAIRS = np.random.default_rng(0).standard_normal((2, 600, 3))
VERDICT = "at least 1.9 nats (± 0.02); the ceiling is 5.3; trust it"


def npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def arrays(x: Any = PAIRS[0], y: Any = PAIRS[1]) -> bytes:
    return npz(x=x, y=y)


CONTENT = arrays()  # once: a zip knows the time at which it was made


def members(**contents: bytes) -> bytes:
    """A zip of files that may be anything."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in contents.items():
            archive.writestr(f"{name}.npy", member)
    return content.getvalue()


def declared(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    """The header of an array, with none of its numbers."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def results(asked: Json) -> Json:
    """As `ml.mi.estimate.run` ends."""
    kinds = {name: spec.ESTIMATORS[name].kind for name in asked["estimators"]}
    estimate = {"value": 1.92, "stderr": 0.02, "log_k": 5.3, "low": False, "saturated": False, "caution": None}
    return {
        "mi": {name: estimate | {"kind": kind, "repeats": [1.9, 1.94]} for name, kind in kinds.items()},
        "bracket": {"lower": 1.9, "upper": 2.1, "lower_by": "infonce", "upper_by": "leave_one_out"},
        "verdict": VERDICT,
        "k": 200,
        "pairs": 600,
        "dimensions": [3, 2],
        "reduced": False,
        "dropped": {"x": [], "y": [2]},
        "timing": {"seconds": 3.5},
        "hardware": {"device": "cpu"},
    }


class Estimator:
    """A worker's side of estimates, without the estimating."""

    def __init__(self, work: Any) -> None:
        self.work = work

    def claim(self, owner: str = "worker-1") -> Claim:
        claim = self.work.write(lambda session: leases.claim_mi_estimate(session, owner, 60))
        assert claim is not None
        return claim  # type: ignore[no-any-return]

    def finish(self, claim: Claim | None = None) -> None:
        done = claim or self.claim()
        self.work.write(lambda session: leases.succeed(session, done, results(done.spec), []))

    def fail(self, reason: str) -> None:
        claim = self.claim()
        self.work.write(lambda session: leases.fail(session, claim, {"code": "user", "message": reason}))


@pytest.fixture
def estimator(work: Any) -> Estimator:
    return Estimator(work)


@pytest.fixture(autouse=True)
def _empty_store(database: Servers) -> Iterator[None]:
    files.remove_folder(settings().uploads_dir)
    yield
    assert not [*files.incoming().glob("*")], "nothing is left half received"


@pytest.fixture
def ask(api: TestClient) -> Ask:
    """Asks for an estimate of a file, with these fields beside it."""

    def ask(content: bytes = CONTENT, headers: Json | None = None, **fields: Any) -> Json:
        answer = api.post("/v1/mi-estimates", data=fields, files={"file": ("my pairs.npz", content)}, headers=headers)
        assert answer.status_code == 202, answer.text
        assert answer.headers["Location"] == answer.json()["links"]["self"]
        return dict(answer.json())

    return ask


def stored() -> set[str]:
    """Names of all that lies in the folder of uploads."""
    root = settings().uploads_dir
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


# What is asked and answered


def test_an_estimate_is_queued_with_all_that_was_left_out_filled_in(api: TestClient, ask: Ask, estimator: Estimator) -> None:
    made = ask()
    asked = spec.MiEstimate().model_dump(mode="json")
    assert (made["state"], made["attempt"], made["spec"], made["name"]) == ("queued", 0, asked, "my pairs")
    assert (made["sha256"], made["size"]) == (sha256(CONTENT).hexdigest(), len(CONTENT))
    assert (made["results"], made["error"], made["same_as"], made["finished_at"]) == (None, None, None, None)
    assert api.get(made["links"]["self"]).json() == made
    assert files.arrays(made["id"]).read_bytes() == CONTENT
    claim = estimator.claim()
    assert (claim.kind, claim.id, claim.spec) == ("mi_estimate", made["id"], asked)


def test_fields_are_text_and_estimators_come_with_commas_or_several_times(ask: Ask) -> None:
    made = ask(estimators="nwj, infonce,nwj", critic="bilinear", k="64", repeats="4", seed="7", name="mine")
    assert made["name"] == "mine"
    assert made["spec"] == {"estimators": ["nwj", "infonce"], "critic": "bilinear", "k": 64, "repeats": 4, "seed": 7}
    assert ask(estimators=["ksg", "cca, doe"])["spec"]["estimators"] == ["ksg", "cca", "doe"]


def test_results_are_answered_in_the_order_asked_for(api: TestClient, ask: Ask, estimator: Estimator, work: Any) -> None:
    made = ask(estimators="smile,infonce,cca")
    claim = estimator.claim()
    progress = {"stage": "estimate", "step": 3, "total": 10, "rate": 1.5, "eta_s": 4.7}
    work.write(lambda session: leases.report(session, claim, progress))
    running = api.get(made["links"]["self"])
    assert (running.json()["state"], running.json()["attempt"], running.json()["progress"]) == ("running", 1, progress)
    known = {"If-None-Match": running.headers["ETag"]}
    assert api.get(made["links"]["self"], headers=known).status_code == 304
    estimator.finish(claim)
    found = api.get(made["links"]["self"], headers=known).json()
    assert (found["state"], found["results"]["verdict"]) == ("succeeded", VERDICT)
    assert list(found["results"]["mi"]) == ["smile", "infonce", "cca"]
    assert found["results"]["mi"]["infonce"]["kind"] == "lower"
    assert found["results"]["bracket"]["upper_by"] == "leave_one_out"
    assert found["started_at"] <= found["finished_at"]


def test_a_failure_says_why_and_three_lost_attempts_are_one(api: TestClient, ask: Ask, estimator: Estimator, work: Any) -> None:
    bad, lost = ask(arrays(x=PAIRS[0] + np.nan)), ask()
    estimator.fail("x is nan in row 0, column 0")
    failed = api.get(bad["links"]["self"]).json()
    assert (failed["state"], failed["results"]) == ("failed", None)
    assert failed["error"] == {"code": "user", "message": "x is nan in row 0, column 0"}
    error = {"code": "lost", "message": "the estimating process ended early"}
    for _ in range(3):
        claim = estimator.claim()
        work.write(lambda session, claim=claim: leases.lose(session, claim, error))
    failed = api.get(lost["links"]["self"]).json()
    assert (failed["state"], failed["attempt"], failed["error"]) == ("failed", 3, error)


def test_a_lease_that_ran_out_is_taken_back(api: TestClient, ask: Ask, estimator: Estimator, work: Any) -> None:
    made = ask()
    claim = work.write(lambda session: leases.claim_mi_estimate(session, "worker-1", -1))
    assert work.write(leases.reconcile).requeued == 1
    assert api.get(made["links"]["self"]).json()["state"] == "queued"
    with pytest.raises(leases.LeaseLost):
        estimator.finish(claim)
    estimator.finish()
    assert api.get(made["links"]["self"]).json()["attempt"] == 2


def test_waiting_is_preferred_by_header(api: TestClient, ask: Ask) -> None:
    made = ask(headers={"Prefer": "wait=1"})
    assert made["state"] == "queued"
    assert api.get(made["links"]["self"], headers={"Prefer": "wait=1"}).headers["Preference-Applied"] == "wait=1"


def test_lists_go_newest_first_in_pages(api: TestClient, ask: Ask) -> None:
    made = [ask(seed=str(seed))["id"] for seed in range(5)]
    page = api.get("/v1/mi-estimates?limit=3").json()
    rest = api.get(f"/v1/mi-estimates?limit=3&cursor={page['next_cursor']}").json()
    assert [item["id"] for item in page["data"] + rest["data"]] == made[::-1]
    assert (page["has_more"], rest["has_more"], rest["next_cursor"]) == (True, False, None)


def test_a_repeated_post_under_one_key_is_one_estimate(api: TestClient, ask: Ask) -> None:
    key = {"Idempotency-Key": "k"}
    first = ask(headers=key, k="64")
    again = api.post("/v1/mi-estimates", data={"k": "64"}, files={"file": CONTENT}, headers=key)
    assert (again.status_code, again.headers["Idempotent-Replayed"], again.json()) == (202, "true", first)
    assert len(api.get("/v1/mi-estimates").json()["data"]) == 1
    assert stored() == {f"arrays/{first['id']}.npz"}
    for fields, content in (({"k": "65"}, CONTENT), ({"k": "64"}, arrays(y=PAIRS[0]))):
        other = api.post("/v1/mi-estimates", data=fields, files={"file": content}, headers=key)
        assert (other.status_code, other.json()["type"]) == (422, "urn:sweetspot:problem:idempotency-mismatch")


def test_what_was_asked_of_the_same_file_before_is_answered_at_once(api: TestClient, ask: Ask, estimator: Estimator) -> None:
    first = ask(name="one")
    assert ask(name="while it is queued")["state"] == "queued"
    estimator.finish(), estimator.finish()
    found = api.get(first["links"]["self"]).json()
    again = ask(name="two")
    assert (again["state"], again["same_as"], again["name"]) == ("succeeded", first["id"], "two")
    assert again["results"] == found["results"] and again["created_at"] <= again["finished_at"]
    assert not files.arrays(again["id"]).exists()
    assert ask(seed="1")["state"] == "queued"
    assert ask(arrays(y=PAIRS[0]))["state"] == "queued"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/v1/mi-estimates/{NOWHERE}", 404),
        ("GET", "/v1/mi-estimates/17", 404),
        ("DELETE", f"/v1/mi-estimates/{NOWHERE}", 404),
        ("POST", f"/v1/mi-estimates/{NOWHERE}/cancel", 404),
        ("GET", "/v1/mi-estimates?limit=0", 422),
    ],
)
def test_errors_are_problem_documents(api: TestClient, method: str, path: str, status: int) -> None:
    answer = api.request(method, path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")


# What is refused at the door

STRINGS = np.array([["a", "b"]] * 600)
REFUSED: dict[str, tuple[bytes, Json, str, str]] = {
    "an empty file": (b"", {}, "/file", "the file is empty"),
    "a table": (b"x,y\n1,2\n", {}, "/file", "cannot be read as an npz, which np.savez(file, x=x, y=y) makes: File is not a zip"),
    "a single array": (declared((600, 3)), {}, "/file", "a single array; save both as an npz"),
    "a pickle": (pickle.dumps(PAIRS), {}, "/file", "cannot be read as an npz"),
    "a zip cut short": (CONTENT[:-40], {}, "/file", "cannot be read as an npz"),
    "no x": (npz(a=PAIRS[0], y=PAIRS[1]), {}, "/file", "there is no array 'x' in the file, but a, y; it must hold x and y"),
    "an empty zip": (members(), {}, "/file", "there is no array 'x' in the file, but nothing"),
    "no header": (members(x=b"hello, how are you", y=b""), {}, "/file", "cannot be read as an npz"),
    "three dimensions": (arrays(x=PAIRS), {}, "/file", "x has the shape [2, 600, 3]; it must be [N, d], or [N]"),
    "no dimension": (arrays(x=np.float64(1)), {}, "/file", "x has the shape []"),
    "no columns": (arrays(y=PAIRS[1][:, :0]), {}, "/file", "y has the shape [600, 0]"),
    "strings": (arrays(y=STRINGS), {}, "/file", "y holds <U1; numbers are accepted: floats, integers or booleans"),
    "complex numbers": (arrays(y=PAIRS[1] * 1j), {}, "/file", "y holds complex128"),
    "times": (arrays(y=np.arange(600).astype("M8[s]")), {}, "/file", "y holds datetime64[s]"),
    "pickled objects": (arrays(x=PAIRS[0].astype(object)), {}, "/file", "Python objects, which would have to be unpickled"),
    "unequal rows": (arrays(y=PAIRS[1][:599]), {}, "/file", "x has 600 rows and y has 599; row i of one must belong to row i"),
    "ten rows": (arrays(*PAIRS[:, :10]), {}, "/file", "x has 10 rows; an estimate needs at least 64 pairs"),
    "many columns": (arrays(x=np.zeros((64, 8193), bool)), {}, "/file", "x has 8193 columns; at most 8192 are accepted"),
    "many numbers": (
        members(x=declared((10**9, 1000)), y=declared((10**9, 1))),
        {},
        "/file",
        "which is 1000000000000 numbers; at most 150000000 are accepted, and 50000 rows are enough",
    ),
    "numbers that are not there": (
        members(x=declared((600, 3)), y=declared((600, 3))),
        {},
        "/file",
        "x has the shape [600, 3], but breaks off after 0 of 7200 bytes",
    ),
    "no file": (b"none", {"name": "x"}, "/file", "Field required"),
    "an unknown estimator": (CONTENT, {"estimators": "infonce,mine"}, "/estimators/1", "'ksg' or 'cca', not 'mine'"),
    "the second of several": (CONTENT, {"estimators": ["ksg", "infnce"]}, "/estimators/1", "not 'infnce'"),
    "no estimator": (CONTENT, {"estimators": " ,"}, "/estimators", "at least 1 item"),
    "an unknown critic": (CONTENT, {"critic": "art"}, "/critic", "'separable', 'bilinear' or 'concatenated', not 'art'"),
    "one candidate": (CONTENT, {"k": "1"}, "/k", "greater than or equal to 2, not '1'"),
    "half a candidate": (CONTENT, {"k": "2.5"}, "/k", "valid integer"),
    "more candidates than pairs": (CONTENT, {"k": "201"}, "/k", "3 repeats hold out 200 pairs at a time; 2 to 200"),
    "one repeat": (CONTENT, {"repeats": "1"}, "/repeats", "greater than or equal to 2, not '1'"),
    "a field twice": (CONTENT, {"k": ["64", "64"]}, "/k", "one k, not several"),
    "an unknown field": (CONTENT, {"estimator": "ksg"}, "/estimator", "besides `file` there are estimators, critic"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused_at_once(api: TestClient, case: str) -> None:
    content, fields, pointer, words = REFUSED[case]
    sent = {"file": ("f.npz", content)} if case != "no file" else {"name": (None, "x")}
    answer = api.post("/v1/mi-estimates", data=fields if case != "no file" else {}, files=sent)
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json"), answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert words in error["message"]
    assert not stored() and not api.get("/v1/mi-estimates").json()["data"]


@pytest.mark.parametrize(
    "content",
    [
        arrays(PAIRS[0][:, 0], PAIRS[1][:, 0] > 0),
        arrays(PAIRS[0].astype(np.float16), np.arange(600, dtype=np.uint8)),
        arrays(np.asfortranarray(PAIRS[0]), PAIRS[1].astype(">f4")),
        npz(x=PAIRS[0], y=PAIRS[1], labels=np.arange(4)),
        arrays(*PAIRS[:, :64]),
    ],
    ids=["vectors and booleans", "halves and bytes", "columns first and big ends", "others beside them", "64 pairs"],
)
def test_what_can_be_measured_is_taken(ask: Ask, content: bytes) -> None:
    assert ask(content)["state"] == "queued"


def test_a_compressed_npz_is_taken(ask: Ask) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, x=PAIRS[0], y=PAIRS[1])
    assert ask(content.getvalue())["state"] == "queued"


def test_a_file_may_be_so_large_and_no_larger(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_LARGEST_UPLOAD", "20000")
    settings.cache_clear()
    try:
        answer = api.post("/v1/mi-estimates", files={"file": ("f.npz", CONTENT)})
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    assert answer.status_code == 413
    assert "more than the 20000 bytes" in answer.json()["detail"]
    assert not stored()


# Cancelling and deleting


def test_cancelling_is_at_once_where_nobody_works_on_it(api: TestClient, ask: Ask) -> None:
    made = ask()
    answer = api.post(made["links"]["cancel"])
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert answer.json()["finished_at"]
    again = api.post(made["links"]["cancel"])
    assert (again.status_code, again.json()["state"]) == (409, "cancelled")


def test_else_it_is_cancelled_once_the_worker_says_so(api: TestClient, ask: Ask, estimator: Estimator, work: Any) -> None:
    made = ask()
    claim = estimator.claim()
    for _ in range(2):
        assert api.post(made["links"]["cancel"]).json()["state"] == "cancelling"
    with pytest.raises(leases.LeaseLost):
        estimator.finish(claim)
    work.write(lambda session: leases.confirm_cancelled(session, claim))
    assert api.get(made["links"]["self"]).json()["state"] == "cancelled"


def test_deleting_frees_the_file(api: TestClient, ask: Ask, estimator: Estimator) -> None:
    made = ask()
    for state in ("queued", "running"):
        busy = api.delete(made["links"]["self"])
        assert (busy.status_code, busy.json()["state"]) == (409, state)
        if state == "queued":
            claim = estimator.claim()
    estimator.finish(claim)
    assert api.delete(made["links"]["self"]).status_code == 204
    assert api.get(made["links"]["self"]).status_code == api.delete(made["links"]["self"]).status_code == 404
    assert not stored()


def test_arrays_are_kept_as_long_as_somebody_needs_them(ask: Ask, estimator: Estimator, work: Any, api: TestClient) -> None:
    finished, failed, cancelled, running, queued = (ask(seed=str(seed)) for seed in range(5))
    estimator.finish()
    estimator.fail("no")
    api.post(cancelled["links"]["cancel"])
    estimator.claim()
    orphan = files.arrays(NOWHERE)
    orphan.write_bytes(b"left by a process that was killed")
    work.write(mi_estimates.tidy)
    assert {files.arrays(one["id"]).exists() for one in (finished, failed, cancelled)} == {False}
    assert orphan.exists(), "it may be somebody's who is about to commit"
    for path in (orphan, files.arrays(running["id"]), files.arrays(queued["id"])):
        os.utime(path, (0, 0))
    work.write(mi_estimates.tidy)
    assert stored() == {f"arrays/{one['id']}.npz" for one in (running, queued)}


# By the client and the command line

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def url(database: Servers) -> Iterator[str]:
    """The API on a port."""
    server = uvicorn.Server(uvicorn.Config(create_app(), port=free_port(), log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{server.config.port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my pairs.npz"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def sweetspot(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line: its exit status, and what it printed."""
    monkeypatch.setenv("SWEETSPOT_URL", url)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sweetspot", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def working(estimator: Estimator, work: Any) -> Callable[[str | None], threading.Thread]:
    """A worker that waits for an estimate and is done with it: it succeeds, or fails for a reason."""

    def until_done(reason: str | None) -> None:
        while (claim := work.write(lambda session: leases.claim_mi_estimate(session, "worker-1", 60))) is None:
            time.sleep(0.01)
        if reason:
            work.write(lambda session: leases.fail(session, claim, {"code": "user", "message": reason}))
        else:
            estimator.finish(claim)

    def start(reason: str | None = None) -> threading.Thread:
        thread = threading.Thread(target=until_done, args=(reason,))
        thread.start()
        return thread

    return start


def test_the_client_sends_a_file_or_two_arrays(url: str, file: Path, working: Any) -> None:
    with Sweetspot(url) as client:
        made = client.estimate_mi(file, estimators=["nwj", "ksg"], critic="concatenated", k=50, repeats=2, seed=1, name="mine")
        assert made["spec"] == {"estimators": ["nwj", "ksg"], "critic": "concatenated", "k": 50, "repeats": 2, "seed": 1}
        with pytest.raises(ConflictError):
            client.delete(made["id"])
        assert client.cancel(made["id"])["state"] == "cancelled"
        worker = working()
        found = client.estimate_mi((PAIRS[0].tolist(), PAIRS[1]), wait=True)
        worker.join()
        assert (found["state"], found["results"]["verdict"]) == ("succeeded", VERDICT)
        with pytest.raises(InvalidError, match="y has 599"):
            client.estimate_mi((PAIRS[0], PAIRS[1][:599]))
        assert [one["id"] for one in client.mi_estimates()] == [found["id"], made["id"]]
        client.delete(made["id"])


def test_the_command_ends_with_the_verdict_in_one_line(sweetspot: Run, file: Path, working: Any) -> None:
    worker = working()
    status, out, err = sweetspot("estimate-mi", file, "--estimators", "infonce, leave_one_out", "-k", "64", "--repeats", "2")
    worker.join()
    assert status == 0
    lines = out.splitlines()
    assert lines[-1] == VERDICT
    rows = [line.split() for line in lines]
    assert ["infonce", "1.920", "±", "0.020", "at", "least", "5.30"] in rows
    assert ["leave_one_out", "1.920", "±", "0.020", "at", "most", "5.30"] in rows
    assert "600 pairs of 3 and 2 dimensions, 200 candidates" in out
    assert "of y 1 constant column(s)" in out
    (estimate,) = set(re.findall("mie_[0-9a-f]{32}", err))
    assert sweetspot("status", estimate)[1].splitlines()[-1] == VERDICT


def test_the_command_tells_a_failure_and_exits_with_1(sweetspot: Run, file: Path, working: Any) -> None:
    worker = working("x is nan in row 3, column 1")
    status, out, _ = sweetspot("estimate-mi", file)
    worker.join()
    assert status == 1
    assert "x is nan in row 3, column 1" in out
    status, _, err = sweetspot("estimate-mi", file, "--estimators", "mine")
    assert (status, "/estimators/0" in err) == (1, True)
    assert sweetspot("estimate-mi", file.with_name("nothing.npz"))[0] == 2


def test_the_command_prints_json_alone(sweetspot: Run, file: Path, working: Any) -> None:
    worker = working()
    status, out, _ = sweetspot("estimate-mi", file, "--json")
    worker.join()
    assert status == 0
    assert re.match(r'{\n  "id": "mie_', out)
