"""`/v1/experiments`: from submission to results, and what is refused on the way."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from threading import Thread
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient

from app.embedded import free_port
from app.main import LARGEST_BODY, create_app
from app.persistence import experiments, files, leases
from app.version import CODE_VERSION

Json = dict[str, Any]
Submit = Callable[..., Json]
IDLE = {"stage": None, "step": 0, "total": None, "rate": None, "eta_s": None}


def get(api: TestClient, path: str, **headers: str) -> Json:
    answer = api.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


# Submission


def test_only_dataset_and_views_are_needed_and_the_rest_is_resolved(api: TestClient, spec: Json) -> None:
    answer = api.post("/v1/experiments", json=spec)
    experiment = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/experiments/{experiment['id']}" == experiment["links"]["self"]
    assert get(api, answer.headers["Location"]) == experiment
    resolved = experiment["spec"]
    assert resolved["spec_version"] == 1
    chosen = {"name": "digits", "image_size": 16}
    assert resolved["dataset"] == chosen | dict.fromkeys(("version", "digits", "backgrounds"))
    assert resolved["pretrain"]["batch_size"] == 256
    assert resolved["pretrain"]["precision"] in ("float32", "bfloat16")
    assert resolved["mi"]["k"] == 512
    assert resolved["tasks"][0]["name"] == "classification"


def test_the_fields_of_the_contract_are_always_there(submit: Submit) -> None:
    experiment = submit(name="crop 0.2", tags=["a"], priority=3)
    fields = "state attempt progress spec results error links created_at started_at finished_at"
    assert set(fields.split()) | {"id", "name", "retry_of"} == set(experiment)
    assert experiment["id"].startswith("exp_") and experiment["name"] == "crop 0.2"
    assert (experiment["state"], experiment["attempt"], experiment["progress"]) == ("queued", 0, IDLE)
    assert experiment["results"] is experiment["error"] is experiment["started_at"] is experiment["finished_at"] is None
    assert datetime.fromisoformat(experiment["created_at"]).utcoffset() == timedelta(0)


def test_resolving_what_was_resolved_changes_nothing(api: TestClient, submit: Submit) -> None:
    resolved = submit(pretrain={"steps": 300})["spec"]
    assert api.post("/v1/experiments", json=resolved).json()["spec"] == resolved


def test_a_dry_run_answers_spec_and_cost_and_queues_nothing(api: TestClient, spec: Json, submit: Submit) -> None:
    answer = api.post("/v1/experiments?dry_run=true", json=spec)
    assert answer.status_code == 200
    assert answer.json()["cost"]["trainings"] == 1
    assert answer.json()["cost"]["seconds"] > 0
    assert get(api, "/v1/experiments")["data"] == []
    assert answer.json()["spec"] == submit()["spec"]


def test_every_encoder_of_the_catalogue_has_a_cost(api: TestClient, spec: Json) -> None:
    for variant in get(api, "/v1/catalog/encoders")["data"]:
        answer = api.post("/v1/experiments?dry_run=true", json=spec | {"encoder": {"kind": variant["name"]}})
        assert answer.status_code == 200, answer.text


def test_the_cost_learns_from_finished_experiments(api: TestClient, spec: Json, submit: Submit, work: Any) -> None:
    def cost() -> Json:
        return dict(api.post("/v1/experiments?dry_run=true", json=spec | {"pretrain": {"steps": 6000}}).json()["cost"])

    assert "reference" in cost()["basis"]
    submit()
    work.succeed(work.claimed())  # at 21943 pairs per second
    assert "finished experiments" in cost()["basis"]
    assert cost()["seconds"] == pytest.approx(6000 * 256 / 21942.857 * 9 / 8 + 2, rel=0.01)


# What is refused, each with its pointer and with what would be accepted

NOISE = {"kind": "noise"}
REFUSED: list[tuple[Json, str, str]] = [
    ({"colour": "red"}, "/colour", "unknown field"),
    ({"views": NOISE | {"sgima": 1}}, "/views/sgima", "unknown field"),
    ({"views": {"kind": "augment", "crop_scale_min": 0}}, "/views/crop_scale_min", "greater than 0"),
    ({"views": {"kind": "crop", "area": 0}}, "/views/area", "greater than 0"),
    ({"views": {"kind": "crop", "area": 1.01}}, "/views/area", "less than or equal to 1"),
    ({"views": {"kind": "twirl"}}, "/views/kind", "'noise'"),
    ({"views": {"sigma": 1}}, "/views/kind", "required"),
    ({"views": None}, "/views", "object"),
    ({"views": NOISE | {"sigma": -0.1}}, "/views/sigma", "greater than or equal to 0"),
    ({"views": NOISE | {"sigma": float("nan")}}, "/views/sigma", "finite"),
    ({"views": NOISE | {"sigma": float("inf")}}, "/views/sigma", "finite"),
    ({"views": NOISE | {"sigma": 10**400}}, "/views/sigma", "number"),
    ({"views": NOISE | {"sigma": "much"}}, "/views/sigma", "number"),
    ({"views": NOISE | {"sigma": [1]}}, "/views/sigma", "number"),
    ({"mi": {"k": 541}}, "/mi/k", "2 to 540"),
    ({"mi": {"k": 1}}, "/mi/k", "greater than or equal to 2"),
    ({"mi": {"estimators": ["guess"]}}, "/mi/estimators/0", "'infonce'"),
    ({"dataset": {"name": "imagenet22k"}}, "/dataset/name", "put it there as imagenet22k.npz"),
    ({"dataset": {"name": "../../etc/passwd"}}, "/dataset/name", "pattern"),
    ({"dataset": {"name": ""}}, "/dataset/name", "at least 1"),
    ({"dataset": {"name": "digits", "image_size": 7}}, "/dataset/image_size", "greater than or equal to 8"),
    ({"dataset": {"name": "digits", "image_size": 513}}, "/dataset/image_size", "less than or equal to 512"),
    ({"dataset": {"name": "digits", "image_size": 16.5}}, "/dataset/image_size", "integer"),
    ({"dataset": "digits"}, "/dataset", "object"),
    ({"pretrain": {"batch_size": 1079}}, "/pretrain/batch_size", "at most 1078"),
    ({"pretrain": {"steps": 10, "epochs": 1}}, "/pretrain", "steps or epochs, not both"),
    ({"pretrain": {"steps": 0}}, "/pretrain/steps", "greater than or equal to 1"),
    ({"tasks": [{"kind": "knn"}, {"kind": "knn", "k": 1}]}, "/tasks/1/name", "a name of its own"),
    ({"tasks": [{"kind": "classification", "labels": 1079}]}, "/tasks/0/labels", "10 (one a class) to 1078"),
    ({"tasks": [{"kind": "classification", "labels": 9}]}, "/tasks/0/labels", "10 (one a class) to 1078"),
    ({"tasks": {"kind": "knn"}}, "/tasks", "valid tuple"),
    ({"encoder": {"kind": "resnet9000"}}, "/encoder/kind", "'resnet18'"),
    ({"encoder": {"width": 32}}, "/encoder/kind", "required"),
    ({"method": {"kind": "simclr", "temperature": 0}}, "/method/temperature", "greater than or equal to"),
    ({"limits": {"seconds": 0}}, "/limits/seconds", "greater than 0"),
    ({"seed": -1}, "/seed", "greater than or equal to 0"),
    ({"seed": 10**400}, "/seed", "less than or equal to"),
    ({"spec_version": 2}, "/spec_version", "1"),
    ({"name": "x" * 201}, "/name", "at most 200"),
    ({"name": "a\0b"}, "/name", "without the character"),
    ({"name": "\ud800"}, "/name", "without the character"),
    ({"tags": ["fine", "\0"]}, "/tags/1", "without the character"),
    ({"tasks": [{"kind": "knn", "name": "\udfff"}]}, "/tasks/0/name", "without the character"),
    ({"a/b~c": {"\ud800": 1}}, "/a~1b~0c", "without the character"),
]


@pytest.mark.parametrize(("fields", "pointer", "words"), REFUSED, ids=[f"{pointer} {words}" for _, pointer, words in REFUSED])
@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_bad_spec_names_the_field(api: TestClient, spec: Json, fields: Json, pointer: str, words: str, query: str) -> None:
    answer = api.post(f"/v1/experiments{query}", content=json.dumps(spec | fields), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    found = {error["pointer"]: error["message"] for error in answer.json()["errors"]}
    assert words in found[pointer]


def test_every_field_at_fault_is_named_at_once(api: TestClient, spec: Json) -> None:
    answer = api.post("/v1/experiments", json=spec | {"seed": -1, "priority": 1001, "views": {"kind": "crop", "area": 2}})
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/seed", "/priority", "/views/area"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"[]", 422),
        (b"null", 422),
        (b"3", 422),
        (b'"digits"', 422),
        (b'{"dataset":', 422),
        (b"\xff\xfe\xff", 400),
        (b"[" * 40 + b"]" * 40, 422),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
        (b'{"seed": 1' + b"0" * 5000 + b"}", 400),
        (b" " * (LARGEST_BODY + 1), 413),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
def test_a_body_that_is_no_spec(api: TestClient, body: bytes, status: int) -> None:
    answer = api.post("/v1/experiments", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_broken_json_is_placed_at_a_character(api: TestClient) -> None:
    answer = api.post("/v1/experiments", content='{"seed": 1,}', headers={"Content-Type": "application/json"})
    assert answer.json()["errors"][0]["pointer"] == ""
    assert "character 11" in answer.json()["errors"][0]["message"]


def test_a_dataset_that_is_there_may_be_used(datasets_folder: Any, api: TestClient, spec: Json) -> None:
    if not (datasets_folder / "mnist").is_dir():
        pytest.skip("no mnist under SWEETSPOT_DATASETS")
    answer = api.post("/v1/experiments?dry_run=true", json=spec | {"dataset": {"name": "mnist"}})
    assert answer.json()["spec"]["dataset"]["image_size"] == 28
    too_many = api.post("/v1/experiments", json=spec | {"dataset": {"name": "mnist"}, "mi": {"k": 8977}})
    assert "2 to 8976" in too_many.json()["errors"][0]["message"]


# Lists


def test_filters(api: TestClient, submit: Submit, work: Any, sweep_spec: Json) -> None:
    red, blue = submit(name="Red fox", tags=["x", "y"]), submit(name="blue_100%", tags=["y"])
    work.succeed(work.claimed())
    sweep = api.post("/v1/sweeps", json=sweep_spec).json()

    def ids(query: str) -> set[str]:
        return {experiment["id"] for experiment in get(api, f"/v1/experiments?{query}")["data"]}

    members = {member["id"] for member in sweep["experiments"]}
    assert ids("state=succeeded") == {red["id"]}
    assert ids(f"sweep={sweep['id']}") == members
    assert ids("tag=y") == {red["id"], blue["id"]}
    assert ids("tag=x") == {red["id"]}
    assert ids("q=FOX") == {red["id"]}
    assert ids("q=_100%25") == {blue["id"]}
    assert ids(f"q={blue['id']}") == {blue["id"]}
    assert ids("tag=y&state=queued") == {blue["id"]}


def test_created_after_with_and_without_an_offset(api: TestClient, submit: Submit) -> None:
    first, second = submit(), submit()
    between = datetime.fromisoformat(first["created_at"])
    assert between < datetime.fromisoformat(second["created_at"])
    naive = between.astimezone(UTC).replace(tzinfo=None).isoformat()
    elsewhere = between.astimezone(timezone(timedelta(hours=5))).isoformat()
    for text in (naive, f"{naive}Z", elsewhere):
        data = api.get("/v1/experiments", params={"created_after": text}).json()["data"]
        assert [experiment["id"] for experiment in data] == [second["id"]]
    assert api.get("/v1/experiments?created_after=yesterday").status_code == 422


# A life


def test_from_queued_to_succeeded(api: TestClient, submit: Submit, work: Any) -> None:
    url = f"/v1/experiments/{submit()['id']}"
    claim = work.claimed()
    progress = {"stage": "pretrain", "step": 30, "total": 400, "rate": 85.5, "eta_s": 4.3}
    work.write(lambda session: leases.report(session, claim, progress, [("loss", 30, 4.2)], [("stage", {"stage": "pretrain"})]))
    running = get(api, url)
    assert (running["state"], running["attempt"], running["progress"]) == ("running", 1, progress)
    assert running["started_at"] is not None and running["finished_at"] is None

    work.succeed(claim, i_nce=2.64, accuracy=0.86)
    done = get(api, url)
    assert done["state"] == "succeeded"
    assert done["created_at"] < done["started_at"] < done["finished_at"]
    found = done["results"]
    assert set(found) >= {"mi", "information", "tasks", "quality", "timing", "hardware"}
    assert set(found["mi"]["infonce"]) >= {"value", "stderr", "log_k", "saturated", "kind"}
    assert set(found["information"]) >= {"total", "nuisance", "task", "probe", "missing"}
    assert set(found["information"]["probe"]) >= {"v1", "v2", "both"}
    assert found["tasks"]["classification"]["value"] == 0.86
    assert found["views"] is None  # also of what was trained before any could be learned
    assert set(found["tasks"]["classification"]) == {"metric", "value", "ci", "chance", "per_class", "supervised", "fitted"}
    assert [(event["seq"], event["type"]) for event in get(api, f"{url}/events")["data"]] == [
        (1, "queued"),
        (2, "running"),
        (3, "stage"),
        (4, "succeeded"),
    ]
    assert get(api, f"{url}/metrics?name=loss")["data"] == [{"name": "loss", "step": 30, "value": 4.2}]
    assert get(api, f"{url}/metrics?name=other")["data"] == []


def test_a_failure_says_why(api: TestClient, submit: Submit, work: Any) -> None:
    url = f"/v1/experiments/{submit()['id']}"
    error = {"code": "internal", "message": "Diverged: the loss is nan after 3 steps"}
    claim = work.claimed()
    work.write(lambda session: leases.fail(session, claim, error))
    failed = get(api, url)
    assert (failed["state"], failed["error"], failed["results"]) == ("failed", error, None)


def test_what_is_queued_is_cancelled_at_once(api: TestClient, submit: Submit, work: Any) -> None:
    answer = api.post(f"/v1/experiments/{submit()['id']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert answer.json()["finished_at"] is not None
    assert work.claim() is None


def test_what_runs_is_cancelled_once_nothing_works_on_it(api: TestClient, submit: Submit, work: Any) -> None:
    url = f"/v1/experiments/{submit()['id']}"
    claim = work.claimed()
    assert api.post(f"{url}/cancel").json()["state"] == "cancelling"
    assert api.post(f"{url}/cancel").json()["state"] == "cancelling"
    work.write(lambda session: leases.confirm_cancelled(session, claim))
    assert get(api, url)["state"] == "cancelled"
    assert [event["type"] for event in get(api, f"{url}/events")["data"]] == ["queued", "running", "cancelling", "cancelled"]


def test_retry_makes_a_new_experiment_of_the_same_spec(api: TestClient, submit: Submit, work: Any) -> None:
    old = submit(name="again", tags=["t"], priority=2)
    refused = api.post(f"/v1/experiments/{old['id']}/retry")
    assert (refused.status_code, refused.json()["state"]) == (409, "queued")
    work.succeed(work.claimed())
    answer = api.post(f"/v1/experiments/{old['id']}/retry")
    new = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"].endswith(new["id"])
    assert (new["retry_of"], new["spec"], new["state"]) == (old["id"], old["spec"], "queued")
    assert get(api, f"/v1/experiments/{old['id']}")["state"] == "succeeded"


def test_a_retry_may_go_on_from_the_cancelled_ones_of_the_same_numbers(
    api: TestClient, submit: Submit, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def retried(experiment_id: str) -> str:
        return str(api.post(f"/v1/experiments/{experiment_id}/retry").json()["id"])

    def cancelled(experiment_id: str) -> str:
        assert api.post(f"/v1/experiments/{experiment_id}/cancel").json()["state"] == "cancelled"
        return experiment_id

    def twins(experiment_id: str) -> list[str]:
        return list(work.write(lambda session: experiments.cancelled_twins(session, experiment_id)))

    first = cancelled(submit()["id"])
    second = cancelled(retried(first))
    third = retried(second)
    assert (twins(first), twins(second), twins(third)) == ([], [first], [second, first])
    work.succeed(work.claimed())
    assert twins(retried(third)) == []
    api.delete(f"/v1/experiments/{second}")
    assert twins(third) == []
    other = retried(first)
    assert twins(other) == [first]
    monkeypatch.setattr(experiments, "CODE_VERSION", "another")
    assert twins(other) == []


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_what_is_finished_cannot_be_cancelled(state: str, api: TestClient, submit: Submit, work: Any) -> None:
    url = f"/v1/experiments/{submit()['id']}"
    if state == "cancelled":
        api.post(f"{url}/cancel")
    else:
        claim = work.claimed()
        error = {"code": "internal", "message": "no luck"}
        work.succeed(claim) if state == "succeeded" else work.write(lambda session: leases.fail(session, claim, error))
    answer = api.post(f"{url}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (409, state)
    assert get(api, url)["state"] == state


def test_delete_frees_the_files_and_only_of_what_is_finished(api: TestClient, submit: Submit, work: Any) -> None:
    experiment_id = submit()["id"]
    url = f"/v1/experiments/{experiment_id}"
    claim = work.claimed()
    refused = api.delete(url)
    assert (refused.status_code, refused.json()["state"]) == (409, "running")
    work.succeed(claim, artifacts={"encoder.safetensors": b"weights"})
    assert files.experiment_folder(experiment_id).is_dir()
    assert api.delete(url).status_code == 204
    assert not files.experiment_folder(experiment_id).exists()
    assert api.get(url).status_code == api.get(f"{url}/events").status_code == api.delete(url).status_code == 404


# What it leaves


def test_artifacts_are_those_of_the_attempt_that_succeeded(api: TestClient, submit: Submit, work: Any) -> None:
    url = f"/v1/experiments/{submit()['id']}"
    first = work.claimed()
    stale = files.attempt_folder(first.id, 1)
    stale.mkdir(parents=True)
    (stale / "encoder.safetensors").write_bytes(b"of the lost attempt")
    work.write(lambda session: leases.give_back(session, first))
    assert get(api, f"{url}/artifacts")["data"] == []
    work.succeed(work.claimed(), artifacts={"encoder.safetensors": b"weights", "preview.png": b"picture"})
    listed = get(api, f"{url}/artifacts")["data"]
    assert [(file["name"], file["size"]) for file in listed] == [("encoder.safetensors", 7), ("preview.png", 7)]
    answer = api.get(listed[0]["url"])
    assert (answer.content, answer.headers["Content-Type"]) == (b"weights", "application/octet-stream")
    assert answer.headers["ETag"] == f'"{listed[0]["sha256"]}"'
    assert api.get(listed[0]["url"], headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    part = api.get(listed[0]["url"], headers={"Range": "bytes=0-2"})
    assert (part.status_code, part.content) == (206, b"wei")
    picture = api.get(f"{url}/preview.png")
    assert (picture.content, picture.headers["Content-Type"]) == (b"picture", "image/png")


@pytest.mark.parametrize("name", ["nothing.bin", "log.txt", "%2e%2e", "..%2f..%2fpostgres.log", "..%5clog.txt", "a%00b"])
def test_no_other_file_can_be_had(name: str, api: TestClient, submit: Submit, work: Any) -> None:
    experiment_id = submit()["id"]
    work.succeed(work.claimed(), artifacts={"preview.png": b"picture"})
    (files.attempt_folder(experiment_id, 1) / "log.txt").write_text("not an artifact")
    answer = api.get(f"/v1/experiments/{experiment_id}/artifacts/{name}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_file_that_is_gone_is_not_found(api: TestClient, submit: Submit, work: Any) -> None:
    experiment_id = submit()["id"]
    work.succeed(work.claimed(), artifacts={"preview.png": b"picture"})
    files.remove(experiment_id)
    assert api.get(f"/v1/experiments/{experiment_id}/preview.png").status_code == 404


def test_logs_of_each_attempt(api: TestClient, submit: Submit, work: Any) -> None:
    experiment_id = submit()["id"]
    url = f"/v1/experiments/{experiment_id}/logs"
    assert api.get(url).text == ""
    for attempt in (1, 2):
        claim = work.claimed()
        folder = files.attempt_folder(experiment_id, attempt)
        folder.mkdir(parents=True)
        (folder / "log.txt").write_text(f"attempt {attempt}\n")
        work.write(lambda session, claim=claim: leases.give_back(session, claim))
    answer = api.get(url)
    assert (answer.text, answer.headers["Content-Type"]) == ("attempt 2\n", "text/plain; charset=utf-8")
    assert api.get(f"{url}?attempt=1").text == "attempt 1\n"


def test_reproduce_has_spec_versions_seeds_data_and_hardware(api: TestClient, submit: Submit, work: Any) -> None:
    experiment = submit(seed=7)
    url = f"/v1/experiments/{experiment['id']}/reproduce"
    assert get(api, url)["data"] is None
    work.succeed(work.claimed())
    found = get(api, url)
    assert (found["spec"], found["seed"]) == (experiment["spec"], 7)
    assert found["versions"]["code"] == CODE_VERSION
    assert found["data"]["digest"] == "0" * 64
    assert found["versions"]["torch"] == found["hardware"]["versions"]["torch"] == "2.13.0"
    assert api.post("/v1/experiments?dry_run=true", json=found["spec"]).json()["spec"] == experiment["spec"]


# Events


def test_events_come_in_pages(api: TestClient, submit: Submit, work: Any) -> None:
    url = f"/v1/experiments/{submit()['id']}/events"
    claim = work.claimed()
    for stage in ("data", "pretrain", "information"):
        work.write(
            lambda session, stage=stage: leases.report(session, claim, experiments.IDLE, [], [("stage", {"stage": stage})])
        )
    seen, cursor, pages = [], "0", 0
    while cursor is not None:
        page = get(api, f"{url}?limit=2&cursor={cursor}")
        seen += [event["seq"] for event in page["data"]]
        cursor, pages = page["next_cursor"], pages + 1
        assert page["has_more"] == (cursor is not None)
    assert (seen, pages) == ([1, 2, 3, 4, 5], 3)


@pytest.mark.parametrize("number", ["-1", "last", "2147483648"])
def test_an_unfit_last_event_id_is_refused(api: TestClient, submit: Submit, number: str) -> None:
    answer = api.get(f"/v1/experiments/{submit()['id']}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": number})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "header/last-event-id"


@pytest.fixture
def server(api: TestClient) -> Iterator[str]:
    """The API behind a real server, which streams."""
    port = free_port()
    running = uvicorn.Server(uvicorn.Config(create_app(), port=port, log_level="warning", timeout_graceful_shutdown=5))
    thread = Thread(target=running.run)
    thread.start()
    while not running.started and thread.is_alive():
        thread.join(0.02)
    yield f"http://127.0.0.1:{port}"
    running.should_exit = True
    thread.join()


def stream(url: str, **headers: str) -> Iterator[Json]:
    with httpx.stream("GET", url, headers={"Accept": "text/event-stream", **headers}, timeout=30, trust_env=False) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        fields: Json = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                yield fields
                fields = {}


def test_the_stream_replays_follows_and_ends_with_the_experiment(server: str, submit: Submit, work: Any) -> None:
    url = f"{server}/v1/experiments/{submit()['id']}/events"
    claim = work.claimed()
    seen = []
    for message in stream(url):
        seen.append(message)
        if message.get("id") == "2":
            progress = experiments.IDLE | {"stage": "pretrain", "step": 5}
            work.write(lambda session, p=progress: leases.report(session, claim, p, [], [("stage", {"stage": "pretrain"})]))
        elif message["event"] == "progress" and json.loads(message["data"])["step"] == 5:
            work.succeed(claim)
    assert [message["event"] for message in seen if "id" in message] == ["queued", "running", "stage", "succeeded"]
    assert [message["id"] for message in seen if "id" in message] == ["1", "2", "3", "4"]
    as_json = httpx.get(url, trust_env=False).json()["data"]
    assert [json.loads(message["data"]) for message in seen if "id" in message] == as_json
    replayed = list(stream(url, **{"Last-Event-ID": "2"}))
    assert [json.loads(message["data"]) for message in replayed] == as_json[2:]
    assert list(stream(url, **{"Last-Event-ID": "4"})) == []


def test_a_stream_of_nothing_is_not_begun(server: str, api: TestClient) -> None:
    url = f"{server}/v1/experiments/exp_{'0' * 32}/events"
    answer = httpx.get(url, headers={"Accept": "text/event-stream"}, trust_env=False)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_stream_ends_where_its_experiment_is_deleted(server: str, submit: Submit, api: TestClient) -> None:
    experiment_id = submit()["id"]
    events = stream(f"{server}/v1/experiments/{experiment_id}/events")
    assert next(events)["event"] == "queued"
    api.post(f"/v1/experiments/{experiment_id}/cancel")
    api.delete(f"/v1/experiments/{experiment_id}")
    assert [message["event"] for message in events if "id" in message] in ([], ["cancelled"])


def test_head_of_a_stream_does_not_hang(server: str, submit: Submit) -> None:
    url = f"{server}/v1/experiments/{submit()['id']}/events"
    answer = httpx.head(url, headers={"Accept": "text/event-stream"}, trust_env=False)
    assert (answer.status_code, answer.content) == (200, b"")
