"""`/v1/datasets`: what comes in, what is refused, and who waits for it. The decoding is the worker's, and is tested with it."""

import asyncio
import gc
import os
import resource
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.persistence import datasets, experiments, files, leases
from app.persistence.leases import Claim
from app.settings import settings
from ml.spec import DatasetFacts

Json = dict[str, Any]
Upload = Callable[..., Json]
NOWHERE = f"ds_{'0' * 32}"
CONTENT = b"PK, or something else that a worker will look at"
FACTS = {"train": 1200, "test": 800, "channels": 3, "image_size": 32, "classes": None, "version": "0123"}
UNIT = {"kind": "noise", "sigma": 0.5}


@pytest.fixture
def upload(api: TestClient) -> Upload:
    """Uploads a file, with these fields beside it."""

    def upload(content: bytes = CONTENT, headers: Json | None = None, filename: str = "my photos.zip", **fields: str) -> Json:
        answer = api.post("/v1/datasets", data=fields, files={"file": (filename, content)}, headers=headers)
        assert answer.status_code == 202, answer.text
        assert answer.headers["Location"] == answer.json()["links"]["self"]
        return dict(answer.json())

    return upload


@pytest.fixture(autouse=True)
def _nothing_is_left_half_received() -> Iterator[None]:
    yield
    assert not [*files.incoming().glob("*")]


class Decoder:
    """A worker's side of uploads, without the decoding."""

    def __init__(self, work: Any) -> None:
        self.work = work

    def claim(self, owner: str = "worker-1") -> Claim:
        claim = self.work.write(lambda session: leases.claim_dataset(session, owner, 60))
        assert claim is not None
        return claim  # type: ignore[no-any-return]

    def finish(self, claim: Claim | None = None, **facts: Any) -> int:
        """Say that it is ready, with these facts; answers how much waited for it."""
        done = claim or self.claim()
        known = DatasetFacts(**{**FACTS, **facts, "name": done.id}).model_dump(mode="json")
        folder = files.dataset_folder(done.id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "facts.json").write_text(DatasetFacts(**known).model_dump_json())
        return int(self.work.write(lambda session: leases.succeed_dataset(session, done, known)))

    def reject(self, reason: str) -> None:
        claim = self.claim()
        self.work.write(lambda session: leases.fail(session, claim, {"code": "user", "message": reason}))


@pytest.fixture
def decoder(work: Any) -> Decoder:
    return Decoder(work)


def stored() -> set[str]:
    """Names of all that lies in the folder of uploads."""
    root = settings().uploads_dir
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def _empty_store(database: Any) -> None:
    files.remove_folder(settings().uploads_dir)


# What comes in


def test_an_upload_is_stored_by_its_content_and_queued_to_be_decoded(api: TestClient, upload: Upload, decoder: Decoder) -> None:
    made = upload(name="mine", layout="photos")
    digest = sha256(CONTENT).hexdigest()
    assert (made["state"], made["name"], made["layout"], made["reason"]) == ("processing", "mine", "photos", None)
    assert (made["sha256"], made["size"], made["facts"], made["finished_at"]) == (digest, len(CONTENT), None, None)
    assert api.get(f"/v1/datasets/{made['id']}").json() == made
    assert stored() == {f"blobs/{digest}"}
    assert files.blob(digest).read_bytes() == CONTENT
    claim = decoder.claim()
    assert (claim.kind, claim.id, claim.spec) == ("dataset", made["id"], {"name": "mine", "layout": "photos", "sha256": digest})


def test_a_name_that_is_left_out_is_the_file_s_own_and_a_layout_is_guessed(upload: Upload) -> None:
    assert (upload()["name"], upload()["layout"]) == ("my photos", None)
    assert upload(filename="C:\\data\\scans.npz")["name"] == "scans"
    assert upload(filename="../../etc/x.zip")["name"] == "x"
    assert upload(filename="x" * 300 + ".zip")["name"] == "x" * 200


def test_ready_with_its_facts_or_rejected_with_the_reason(api: TestClient, upload: Upload, decoder: Decoder) -> None:
    first, second = upload(), upload(b"another")
    decoder.finish()
    ready = api.get(first["links"]["self"]).json()
    assert (ready["state"], ready["reason"], ready["facts"]["train"]) == ("ready", None, 1200)
    decoder.reject("holds no image")
    rejected = api.get(second["links"]["self"]).json()
    assert (rejected["state"], rejected["reason"], rejected["facts"]) == ("rejected", "holds no image", None)
    assert rejected["finished_at"]


def test_progress_is_told_while_it_is_decoded(api: TestClient, upload: Upload, decoder: Decoder, work: Any) -> None:
    made = upload()
    claim = decoder.claim()
    progress = {"stage": "decode", "step": 3, "total": 40, "rate": 1.5, "eta_s": 25.0}
    work.write(lambda session: leases.report(session, claim, progress))
    assert api.get(made["links"]["self"]).json()["progress"] == progress


def test_waiting_for_it_is_preferred_by_header(api: TestClient, upload: Upload) -> None:
    made = upload(headers={"Prefer": "wait=1"})
    assert made["state"] == "processing"
    assert api.get(made["links"]["self"], headers={"Prefer": "wait=1"}).headers["Preference-Applied"] == "wait=1"


def test_the_same_file_again_is_ready_at_once_and_says_what_it_shares(api: TestClient, upload: Upload, decoder: Decoder) -> None:
    first = upload(name="one")
    decoder.finish()
    again = upload(name="two")
    assert (again["state"], again["same_as"], again["facts"]["train"]) == ("ready", first["id"], 1200)
    assert again["id"] != first["id"] and again["created_at"] <= again["finished_at"]
    assert len([*files.blob("").iterdir()]) == 1
    other = upload(name="one", layout="photos")
    assert (other["state"], other["same_as"]) == ("processing", None)
    assert api.delete(first["links"]["self"]).status_code == 204
    assert files.blob(first["sha256"]).exists()
    assert (files.dataset_folder(again["id"]) / "facts.json").exists() and not files.dataset_folder(first["id"]).exists()


def test_a_rejected_file_is_tried_again_when_it_comes_again(upload: Upload, decoder: Decoder) -> None:
    upload()
    decoder.reject("no")
    assert upload()["state"] == "processing"


def test_lists_go_newest_first_in_pages(api: TestClient, upload: Upload) -> None:
    made = [upload(str(number).encode())["id"] for number in range(5)]
    page = api.get("/v1/datasets?limit=3").json()
    rest = api.get(f"/v1/datasets?limit=3&cursor={page['next_cursor']}").json()
    assert [item["id"] for item in page["data"] + rest["data"]] == made[::-1]
    assert (page["has_more"], rest["has_more"], rest["next_cursor"]) == (True, False, None)


def test_a_repeated_upload_under_one_key_is_one_upload(api: TestClient, upload: Upload) -> None:
    first = upload(headers={"Idempotency-Key": "k"}, name="mine")
    again = api.post("/v1/datasets", data={"name": "mine"}, files={"file": CONTENT}, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.headers["Idempotent-Replayed"], again.json()) == (202, "true", first)
    assert len(api.get("/v1/datasets").json()["data"]) == 1
    for fields, content in (({"name": "yours"}, CONTENT), ({"name": "mine"}, b"something else")):
        other = api.post("/v1/datasets", data=fields, files={"file": content}, headers={"Idempotency-Key": "k"})
        assert (other.status_code, other.json()["type"]) == (422, "urn:sweetspot:problem:idempotency-mismatch")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/v1/datasets/{NOWHERE}", 404),
        ("GET", "/v1/datasets/17", 404),
        ("DELETE", f"/v1/datasets/{NOWHERE}", 404),
        ("PUT", "/v1/datasets", 405),
        ("GET", "/v1/datasets?limit=0", 422),
        ("GET", "/v1/datasets?cursor=17", 422),
    ],
)
def test_errors_are_problem_documents(api: TestClient, method: str, path: str, status: int) -> None:
    answer = api.request(method, path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


# What is refused at the door

MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}


def part(name: str, content: str, more: str = "") -> str:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{content}\r\n'


def refusal(api: TestClient, status: int, **request: Any) -> Json:
    answer = api.post("/v1/datasets", **request)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.text
    assert not stored() and not api.get("/v1/datasets").json()["data"]
    return dict(answer.json())


@pytest.mark.parametrize(
    ("fields", "file", "pointer", "words"),
    [
        ({"name": "x"}, None, "/file", "Field required"),
        ({}, b"", "/file", "the file is empty"),
        ({"layout": "folders"}, CONTENT, "/layout", "'class_folders', 'photos', 'array', 'clips' or 'paired', not 'folders'"),
        ({"name": "a\0b"}, CONTENT, "/name", "without the character '\\x00'"),
        ({"name": "x" * 201}, CONTENT, "/name", "at most 200 characters"),
        ({"nmae": "x"}, CONTENT, "/nmae", "unknown field; besides `file` there are name, layout"),
        ({"a/b": "x"}, CONTENT, "/a~1b", "unknown field"),
        ({"name": ["x", "y"]}, CONTENT, "/name", "one name, not several"),
    ],
)
def test_a_form_that_is_not_right_names_the_field(
    api: TestClient, fields: Json, file: bytes | None, pointer: str, words: str
) -> None:
    files = {"file": ("f.zip", file)} if file is not None else {"name": (None, "y")}
    problem = refusal(api, 422, data={} if file is None else fields, files=files)
    assert problem["errors"][0]["pointer"] == pointer
    assert words in problem["errors"][0]["message"]


def test_one_file_not_two(api: TestClient) -> None:
    problem = refusal(api, 422, files=[("file", ("a.zip", CONTENT)), ("file", ("b.zip", CONTENT))])
    assert problem["errors"] == [{"pointer": "/file", "message": "one file, not several"}]


def test_a_field_that_comes_first_is_refused_before_the_file_is_taken(api: TestClient) -> None:
    sent = []

    def body() -> Iterator[bytes]:
        yield part("layout", "folders").encode() + part("file", "").encode()[:-2]
        for _ in range(1000):
            sent.append(1)
            yield b"x" * 65536

    problem = refusal(api, 422, content=body(), headers=MULTIPART)
    assert problem["errors"][0]["pointer"] == "/layout"


@pytest.mark.parametrize(
    ("status", "kind", "body", "words"),
    [
        (415, "application/json", "{}", "multipart/form-data"),
        (415, "application/zip", "PK", "multipart/form-data"),
        (415, "", "PK", "multipart/form-data"),
        (400, "multipart/form-data", part("file", "x") + "--b--\r\n", "cannot be read"),
        (400, "multipart/form-data; boundary=" + "b" * 300, "x", "cannot be read"),
        (400, "multipart/form-data; boundary=b", "no form at all", "cannot be read"),
        (400, "multipart/form-data; boundary=b", "", "breaks off before its end"),
        (400, "multipart/form-data; boundary=b", part("file", "x"), "breaks off before its end"),
        (400, "multipart/form-data; boundary=b", "--b\r\n\r\nx\r\n--b--\r\n", "a part of the form has no name"),
        (400, "multipart/form-data; boundary=b", part("name", "x" * 9000) + "--b--\r\n", "more than 8192 bytes"),
        (400, "multipart/form-data; boundary=b", f"--b\r\nX-Long: {'x' * 9000}\r\n\r\nx\r\n--b--\r\n", "cannot be read"),
        (422, "multipart/form-data; boundary=b", "--b--\r\n", "Field required"),
    ],
)
def test_what_is_no_form_is_told_so(api: TestClient, status: int, kind: str, body: str, words: str) -> None:
    problem = refusal(api, status, content=body, headers={"Content-Type": kind} if kind else {})
    assert words in problem["detail"]


@contextmanager
def setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> Iterator[None]:
    monkeypatch.setenv(name, value)
    settings.cache_clear()
    try:
        yield
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_a_file_may_be_so_large_and_no_larger(api: TestClient, upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    with setting(monkeypatch, "SWEETSPOT_LARGEST_UPLOAD", "5000000"):
        problem = refusal(api, 413, files={"file": ("f.zip", b"x" * 5_000_001)})
        assert "more than the 5000000 bytes that SWEETSPOT_LARGEST_UPLOAD allows" in problem["detail"]
        refusal(api, 413, files={"file": ("f.zip", b"x" * 6_000_000)})
        assert upload(b"x" * 5_000_000)["size"] == 5_000_000  # beyond what other bodies may have


def test_other_bodies_keep_their_limit(api: TestClient) -> None:
    assert api.post("/v1/experiments", content=b"x" * (4 * 2**20 + 1)).status_code == 413


def test_a_disk_without_room_is_told_so_and_nothing_is_left(api: TestClient) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        problem = refusal(api, 507, files={"file": ("f.zip", b"x" * 2_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert problem["type"] == "urn:sweetspot:problem:storage-full"
    assert "the disk does not take the file: File too large" in problem["detail"]


def sent(chunks: AsyncIterator[Json]) -> list[Json]:
    """What the application answers to a form that comes in these messages."""
    answers: list[Json] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": "POST",
        "path": "/v1/datasets",
        "raw_path": b"/v1/datasets",
        "root_path": "",
        "query_string": b"",
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "headers": [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")],
    }

    async def send(message: Any) -> None:
        answers.append(message)

    asyncio.run(create_app()(scope, chunks.__anext__, send))
    return answers


@pytest.mark.usefixtures("database")
def test_a_client_that_breaks_off_leaves_nothing_behind() -> None:
    async def broken() -> AsyncIterator[Json]:
        yield {"type": "http.request", "body": part("file", "some of it" * 200_000).encode(), "more_body": True}
        assert [*files.incoming().glob("*")]
        yield {"type": "http.disconnect"}

    assert sent(broken())[0]["status"] == 400
    assert not stored()


@pytest.mark.usefixtures("database")
def test_a_large_file_is_never_whole_in_memory() -> None:
    async def large() -> AsyncIterator[Json]:
        yield {"type": "http.request", "body": part("file", "").encode()[:-2], "more_body": True}
        for _ in range(64):
            yield {"type": "http.request", "body": b"x" * 2**20, "more_body": True}
        yield {"type": "http.request", "body": b"\r\n--b--\r\n", "more_body": False}

    sent(large())  # what is loaded with the first request is no part of it
    gc.collect()
    tracemalloc.start()
    try:
        assert sent(large())[0]["status"] == 202
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
    (blob,) = files.blob("").iterdir()
    assert blob.stat().st_size == 64 * 2**20


# Experiments, sweeps and previews on it


def on(dataset_id: str, **fields: Any) -> Json:
    return {"dataset": {"name": dataset_id}, "views": UNIT, **fields}


def test_an_experiment_may_be_submitted_at_once_and_waits(api: TestClient, upload: Upload, decoder: Decoder, work: Any) -> None:
    dataset = upload()
    made = api.post("/v1/experiments", json=on(dataset["id"]))
    assert made.status_code == 202, made.text
    waiting = made.json()
    assert (waiting["state"], waiting["progress"]["stage"]) == ("queued", None)
    assert waiting["links"]["dataset"] == dataset["links"]["self"]
    assert work.claim() is None
    assert decoder.finish() == 1
    resolved = api.get(waiting["links"]["self"]).json()
    assert resolved["spec"]["dataset"] | {"image_size": 32, "version": "0123"} == resolved["spec"]["dataset"]
    assert (resolved["spec"]["tasks"], resolved["spec"]["mi"]["k"]) == ([], 512)  # without labels there are no tasks
    claim = work.claimed()
    assert claim.spec == resolved["spec"]
    events = api.get(resolved["links"]["events"]).json()["data"]
    assert [(event["type"], event["data"]) for event in events[:2]] == [
        ("queued", {"waits_for": dataset["id"]}),
        ("resolved", {"dataset": dataset["id"]}),
    ]


def test_what_waited_is_the_same_as_what_came_later(api: TestClient, upload: Upload, decoder: Decoder, work: Any) -> None:
    dataset = upload()
    waiting = api.post("/v1/experiments", json=on(dataset["id"], name="early")).json()
    decoder.finish(classes=10)
    later = api.post("/v1/experiments", json=on(dataset["id"], name="late")).json()
    early = api.get(waiting["links"]["self"]).json()
    assert early["spec"] | {"name": "late"} == later["spec"]
    identities = {work.write(lambda session, id=id: experiments.get(session, id).identity) for id in (early["id"], later["id"])}
    assert len(identities) == 1


def test_a_sweep_waits_with_all_its_experiments(api: TestClient, upload: Upload, decoder: Decoder, work: Any) -> None:
    dataset = upload()
    axis = {"path": "views.sigma", "values": [0.1, 0.5, 1.0]}
    sweep = api.post("/v1/sweeps", json={"base": on(dataset["id"]), "axis": axis, "seeds": 2}).json()
    assert sweep["counts"]["queued"] == 6 and work.claim() is None
    assert decoder.finish() == 6
    done = work.finish_all(lambda spec: (1.0, 0.5))
    assert len(done) == 6
    assert api.get(sweep["links"]["self"]).json()["state"] == "succeeded"
    assert len(api.get(sweep["links"]["curve.json"]).json()["points"]) == 3
    assert "on my photos" in api.get(sweep["links"]["curve.svg"]).text


def test_what_does_not_fit_fails_when_the_dataset_is_ready(api: TestClient, upload: Upload, decoder: Decoder) -> None:
    dataset = upload()
    rgb = api.post("/v1/experiments", json=on(dataset["id"], views={"kind": "color_split"})).json()
    fine = api.post("/v1/experiments", json=on(dataset["id"])).json()
    assert decoder.finish(channels=1) == 1
    failed = api.get(rgb["links"]["self"]).json()
    assert (failed["state"], failed["error"]["code"]) == ("failed", "invalid")
    assert failed["error"]["message"].startswith(f"/views/kind: color_split needs red, green and blue, but {dataset['id']}")
    assert failed["finished_at"]
    assert api.get(fine["links"]["self"]).json()["state"] == "queued"


def test_what_waited_for_a_rejected_dataset_fails_with_its_reason(api: TestClient, upload: Upload, decoder: Decoder) -> None:
    dataset = upload()
    experiment = api.post("/v1/experiments", json=on(dataset["id"])).json()
    decoder.reject("holds no image")
    failed = api.get(experiment["links"]["self"]).json()
    error = {"code": "user", "message": f"{dataset['id']} was rejected: holds no image"}
    assert (failed["state"], failed["error"]) == ("failed", error)
    refused = api.post("/v1/experiments", json=on(dataset["id"]))
    assert (refused.status_code, refused.json()["errors"]) == (422, [{"pointer": "/dataset/name", "message": error["message"]}])
    retried = api.post(failed["links"]["retry"])
    assert (retried.status_code, retried.json()["detail"]) == (422, error["message"])


def test_a_dataset_that_breaks_its_worker_three_times_is_rejected(
    api: TestClient, upload: Upload, decoder: Decoder, work: Any
) -> None:
    dataset = upload()
    experiment = api.post("/v1/experiments", json=on(dataset["id"])).json()
    error = {"code": "oom", "message": "the decoding process ended early: out of memory"}
    for _ in range(3):
        assert api.get(dataset["links"]["self"]).json()["state"] == "processing"
        claim = decoder.claim()
        work.write(lambda session, claim=claim: leases.lose(session, claim, error))
    rejected = api.get(dataset["links"]["self"]).json()
    assert (rejected["state"], rejected["reason"]) == ("rejected", error["message"])
    assert api.get(experiment["links"]["self"]).json()["state"] == "failed"


def test_an_experiment_that_was_cancelled_while_it_waited_stays_so(api: TestClient, upload: Upload, decoder: Decoder) -> None:
    dataset = upload()
    experiment = api.post("/v1/experiments", json=on(dataset["id"])).json()
    assert api.post(experiment["links"]["cancel"]).json()["state"] == "cancelled"
    waits_again = api.post(experiment["links"]["retry"]).json()
    assert decoder.finish() == 1
    assert api.get(experiment["links"]["self"]).json()["state"] == "cancelled"
    assert api.get(waits_again["links"]["self"]).json()["spec"]["mi"]["k"] == 512
    retried = api.post(experiment["links"]["retry"]).json()
    assert (retried["state"], retried["spec"]["mi"]["k"]) == ("queued", 512)


def test_a_task_on_an_upload_waits_for_it_too(api: TestClient, upload: Upload, decoder: Decoder, work: Any) -> None:
    pretrained_on, scored_on = upload(), upload(b"another")
    task = {"kind": "classification", "dataset": {"name": scored_on["id"]}}
    experiment = api.post("/v1/experiments", json=on(pretrained_on["id"], tasks=[task])).json()
    assert decoder.finish() == 0
    assert work.claim() is None
    assert decoder.finish(classes=10) == 1
    assert work.claimed().id == experiment["id"]


@pytest.mark.parametrize("place", ["/dataset/name", "/tasks/0/dataset/name"])
def test_an_unknown_dataset_is_refused_where_it_is_named(api: TestClient, spec: Json, place: str) -> None:
    task = {"kind": "classification", "dataset": {"name": NOWHERE}}
    body = on(NOWHERE) if place == "/dataset/name" else spec | {"tasks": [task]}
    answer = api.post("/v1/experiments", json=body)
    assert (answer.status_code, answer.json()["errors"]) == (
        422,
        [{"pointer": place, "message": f"there is no dataset '{NOWHERE}'"}],
    )
    sweep = {"base": body, "axis": {"path": "views.sigma", "values": [1, 2]}, "seeds": 1}
    assert api.post("/v1/sweeps", json=sweep).json()["errors"][0]["pointer"] == f"/base{place}"


def test_what_an_experiment_costs_is_known_once_the_dataset_is(api: TestClient, upload: Upload, decoder: Decoder) -> None:
    dataset = upload()
    early = api.post("/v1/experiments?dry_run=true", json=on(dataset["id"]))
    assert (early.status_code, early.json()["state"]) == (409, "processing")
    decoder.finish()
    assert api.post("/v1/experiments?dry_run=true", json=on(dataset["id"])).json()["cost"]["seconds"] > 0


def test_a_preview_of_it_is_drawn_once_it_is_ready(api: TestClient, upload: Upload, decoder: Decoder, work: Any) -> None:
    dataset = upload()
    pending = api.post("/v1/previews", json=on(dataset["id"]), headers={"Prefer": "wait=0"})
    unfit = api.post("/v1/previews", json=on(dataset["id"], views={"kind": "temporal"}), headers={"Prefer": "wait=0"})
    assert pending.status_code == unfit.status_code == 202
    assert work.write(lambda session: leases.claim_preview(session, "worker-1", 60)) is None
    assert decoder.finish() == 1
    claim = work.write(lambda session: leases.claim_preview(session, "worker-1", 60))
    assert (claim.id, claim.spec["dataset"]["image_size"], claim.spec["views"]) == (pending.json()["id"], 32, UNIT)
    refused = api.get(unfit.headers["Location"])
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert "/views/kind: temporal works on" in refused.json()["detail"]


def test_no_submission_is_forgotten_while_it_gets_ready(api: TestClient, upload: Upload, decoder: Decoder, work: Any) -> None:
    dataset = upload()
    claim = decoder.claim()
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(api.post, "/v1/experiments", json=on(dataset["id"], seed=seed)) for seed in range(24)]
        decoder.finish(claim)
    assert {answer.result().status_code for answer in made} == {202}
    assert len(work.finish_all(lambda spec: (1.0, 0.5))) == 24


# Deleting


def test_deleting_frees_its_files(api: TestClient, upload: Upload, decoder: Decoder) -> None:
    dataset = upload()
    prepared = settings().prepared_dir / f"{dataset['id']}-0123-32"
    prepared.mkdir(parents=True)
    busy = api.delete(dataset["links"]["self"])
    assert (busy.status_code, busy.json()["state"]) == (409, "processing")
    decoder.finish()
    assert api.delete(dataset["links"]["self"]).status_code == 204
    assert api.get(dataset["links"]["self"]).status_code == api.delete(dataset["links"]["self"]).status_code == 404
    assert not stored() and not prepared.exists()


def test_a_dataset_in_use_stays(api: TestClient, upload: Upload, decoder: Decoder, work: Any, spec: Json) -> None:
    dataset, other = upload(), upload(b"another")
    decoder.finish(), decoder.finish(classes=10, channels=1)
    first = api.post("/v1/experiments", json=on(dataset["id"])).json()
    second = api.post(
        "/v1/experiments", json=spec | {"tasks": [{"kind": "classification", "dataset": {"name": other["id"]}}]}
    ).json()
    for experiment, used in ((first, dataset), (second, other)):
        answer = api.delete(used["links"]["self"])
        assert (answer.status_code, answer.json()["state"]) == (409, "ready")
        assert experiment["id"] in answer.json()["detail"]
        work.succeed(work.claimed())
        assert api.delete(used["links"]["self"]).status_code == 204


def test_a_rejected_dataset_may_be_deleted_with_what_failed_on_it_still_there(
    api: TestClient, upload: Upload, decoder: Decoder
) -> None:
    dataset = upload()
    experiment = api.post("/v1/experiments", json=on(dataset["id"])).json()
    decoder.reject("no")
    assert api.delete(dataset["links"]["self"]).status_code == 204
    assert not stored()
    assert api.get(experiment["links"]["self"]).json()["error"]["code"] == "user"
    retried = api.post(experiment["links"]["retry"])
    assert (retried.status_code, retried.json()["detail"]) == (422, f"there is no dataset '{dataset['id']}'")


def test_a_rejected_file_is_not_kept(upload: Upload, decoder: Decoder, work: Any) -> None:
    upload(), upload(layout="photos")
    decoder.reject("no")
    work.write(datasets.tidy)
    assert stored(), "the other upload is still to be decoded from it"
    decoder.reject("no")
    work.write(datasets.tidy)
    assert not stored()


def test_what_a_killed_process_left_behind_is_tidied_up(api: TestClient, upload: Upload, decoder: Decoder, work: Any) -> None:
    ready, busy = upload(), upload(b"another")
    decoder.finish()
    kept = stored()
    leftovers = [files.incoming() / "half", files.dataset_folder(NOWHERE) / "x", files.decoding_folder(ready["id"], 1)]
    for path in (*leftovers, files.blob("0" * 64), files.decoding_folder(busy["id"], 1)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left")
    work.write(datasets.tidy)
    assert all(path.exists() for path in leftovers), "they may be somebody's who lives"
    assert not files.blob("0" * 64).exists()
    for path in settings().uploads_dir.rglob("*"):
        os.utime(path, (0, 0))
    work.write(datasets.tidy)
    assert stored() == kept | {f".{busy['id']}.a1/{busy['id']}"}
