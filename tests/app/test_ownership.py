"""What is somebody's is not there for others: over all routes of the OpenAPI document, so that a new one is covered unedited."""

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, exists, func, select, update

from app.authentication import OPEN
from app.embedded import Servers
from app.main import create_app
from app.persistence import callers, experiments, files
from app.persistence.callers import Caller
from app.persistence.database import open_session
from app.persistence.models import Base, Dataset, Experiment, Owned, Sweep, SweepMember
from app.settings import settings
from ml.spec import DatasetFacts
from workers import searching

Json = dict[str, Any]
Remote = Callable[..., TestClient]
DOCUMENT: Json = create_app().openapi()
OPERATIONS = [(method, path) for path, operations in DOCUMENT["paths"].items() for method in operations]
OWNED = [(method, path) for method, path in OPERATIONS if "{id}" in path]
LISTS = [path for method, path in OPERATIONS if method == "get" and f"{path}/{{id}}" in DOCUMENT["paths"]]
OTHERS = {  # what is no id of anybody's
    ("/v1/experiments/{id}/artifacts/{name}", "name"): "preview.png",
    ("/v1/sweeps/{id}/curve.{format}", "format"): "json",
    ("/v1/presets/{name}/run", "name"): "digits-noise",
    ("/v1/catalog/{sort}", "sort"): "views",
}
HEADER = b'{"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}'
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + b"\0"
NO_WAIT = {"Prefer": "wait=0"}
SECRET_NAME = "anna's secret plan"


def arrays() -> bytes:
    np.savez(made := io.BytesIO(), x=np.eye(64), y=np.eye(64))
    return made.getvalue()


@pytest.fixture(autouse=True)
def _empty_store(database: Servers) -> Iterator[None]:
    files.remove_folder(settings().uploads_dir)
    yield


@pytest.fixture
def anna(remote: Remote) -> TestClient:
    return remote("anna")


@pytest.fixture
def bert(remote: Remote) -> TestClient:
    return remote("bert")


@pytest.fixture
def ids(anna: TestClient, work: Any, spec: Json, sweep_spec: Json) -> dict[str, str]:
    """One of each of Anna's things, by collection."""
    named = spec | {"name": SECRET_NAME, "tags": [SECRET_NAME]}
    experiment = anna.post("/v1/experiments", json=named).json()["id"]
    work.succeed(work.claimed(), artifacts={"preview.png": b"\x89PNG\r\n\x1a\n"})
    sweep = anna.post("/v1/sweeps", json=sweep_spec | {"name": SECRET_NAME}).json()["id"]
    work.finish_all(lambda spec: (1.0 + spec["views"]["sigma"], 0.8))
    sent = {"data": {"name": SECRET_NAME}}
    return {
        "experiments": experiment,
        "sweeps": sweep,
        "previews": anna.post("/v1/previews", json=spec, headers=NO_WAIT).json()["id"],
        "datasets": anna.post("/v1/datasets", files={"file": b"PK"}, **sent).json()["id"],
        "checkpoints": anna.post("/v1/checkpoints", files={"file": WEIGHTS}, **sent).json()["id"],
        "mi-estimates": anna.post("/v1/mi-estimates", files={"file": arrays()}, **sent).json()["id"],
    }


def filled(path: str, ids: dict[str, str]) -> str:
    """The path with Anna's ids; fails for a parameter that nobody has thought of."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return ids[path.split("/")[2]] if name == "id" else OTHERS[path, name]

    return re.sub(r"\{(\w+)\}", value, path)


def seen(client: TestClient, ids: dict[str, str]) -> list[Any]:
    return [client.get(f"/v1/{name}/{id}").content for name, id in ids.items() if name != "previews"]


@pytest.mark.parametrize(("method", "path"), OWNED)
def test_what_is_anothers_is_not_there(ids: dict[str, str], anna: TestClient, bert: TestClient, method: str, path: str) -> None:
    before = seen(anna, ids)
    answer = bert.request(method, filled(path, ids), headers=NO_WAIT)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json"), answer.text
    asked = ids[path.split("/")[2]]
    assert (
        answer.text
        == bert.request(method, filled(path, ids), headers=NO_WAIT | {"X-Request-Id": answer.json()["request_id"]}).text
    )
    assert SECRET_NAME not in answer.text
    assert not [id for id in ids.values() if id != asked and id in answer.text]
    assert seen(anna, ids) == before


@pytest.mark.parametrize(("method", "path"), OWNED)
def test_whoever_it_belongs_to_has_it(ids: dict[str, str], anna: TestClient, method: str, path: str) -> None:
    answer = anna.request(method, filled(path, ids), headers=NO_WAIT)
    assert answer.status_code // 100 == 2 or (method != "get" and answer.status_code == 409), answer.text


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_without_a_key_nothing_is_there(ids: dict[str, str], remote: Remote, method: str, path: str) -> None:
    answer = remote().request(method, filled(path, ids))
    if path in OPEN:
        assert answer.status_code in (200, 503)
    else:
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    assert SECRET_NAME not in answer.text
    assert not [id for id in ids.values() if id in answer.text]


@pytest.mark.parametrize("path", LISTS)
def test_lists_hold_ones_own(ids: dict[str, str], anna: TestClient, bert: TestClient, path: str) -> None:
    assert bert.get(path).json() == {"data": [], "has_more": False, "next_cursor": None}
    assert ids[path.split("/")[2]] in [item["id"] for item in anna.get(path).json()["data"]]


def test_every_list_is_looked_at() -> None:
    assert set(LISTS) == {f"/v1/{name}" for name in ("experiments", "sweeps", "datasets", "mi-estimates")}


def test_filters_find_ones_own(ids: dict[str, str], bert: TestClient) -> None:
    for query in (
        {"sweep": ids["sweeps"]},
        {"q": ids["experiments"]},
        {"q": SECRET_NAME},
        {"tag": SECRET_NAME},
        {"state": "succeeded"},
    ):
        assert bert.get("/v1/experiments", params=query).json()["data"] == []


@pytest.mark.parametrize("page", ["experiments", "sweeps"])
def test_pages_show_ones_own(ids: dict[str, str], anna: TestClient, bert: TestClient, page: str) -> None:
    answer = bert.get(f"/{page}/{ids[page]}")
    assert answer.status_code == 404 and SECRET_NAME not in answer.text
    assert anna.get(f"/{page}/{ids[page]}").status_code == 200


def test_a_stream_of_events_is_its_owners(ids: dict[str, str], anna: TestClient, bert: TestClient) -> None:
    path, stream = f"/v1/experiments/{ids['experiments']}/events", {"Accept": "text/event-stream"}
    assert bert.get(path, headers=stream).status_code == 404
    assert "event: succeeded" in anna.get(path, headers=stream).text


def test_nobody_begins_from_what_is_anothers(
    ids: dict[str, str], anna: TestClient, bert: TestClient, spec: Json, sweep_spec: Json
) -> None:
    dataset, weights = ids["datasets"], ids["checkpoints"]
    on_it = spec | {"dataset": {"name": dataset}}
    begun = {"encoder": {"kind": "resnet18", "weights": weights}, "method": {"kind": "frozen"}}
    task = {"kind": "classification", "target": "label", "dataset": {"name": dataset}}
    refused = {
        "/v1/experiments": [on_it, spec | begun, spec | {"tasks": [task]}],
        "/v1/experiments?dry_run=true": [on_it, spec | begun],
        "/v1/sweeps": [sweep_spec | {"base": on_it}, sweep_spec | {"base": spec | begun}],
        "/v1/previews": [on_it],
        "/v1/presets/digits-noise/run": [{"dataset": dataset}],
        "/v1/presets/digits-noise/run?dry_run=true": [{"dataset": dataset}],
    }
    for path, bodies in refused.items():
        for body in bodies:
            answer = bert.post(path, json=body, headers=NO_WAIT)
            assert answer.status_code == 422, (path, answer.text)
            thing, id = ("checkpoint", weights) if "encoder" in str(body) else ("dataset", dataset)
            assert f"there is no {thing} '{id}'" in answer.text, (path, answer.text)
    assert anna.post("/v1/experiments", json=on_it).status_code == 202
    assert anna.post("/v1/experiments", json=spec | begun).status_code == 202


@pytest.mark.parametrize("disguised", [str.upper, str.title, lambda id: f"ds_{id[3:].upper()}", "{}.".format, "DS_{:.9}".format])
def test_what_is_nearly_an_id_is_no_dataset(
    ids: dict[str, str], bert: TestClient, spec: Json, sweep_spec: Json, disguised: Callable[[str], str]
) -> None:
    """A disk that does not tell cases apart would have Anna's folder under it, as any disk has this one."""
    name = disguised(ids["datasets"])
    facts = files.dataset_folder(name) / "facts.json"
    facts.parent.mkdir(parents=True)
    facts.write_text(DatasetFacts(name=name, train=90, test=10, channels=1, image_size=16, classes=10).model_dump_json())
    on_it, task = {"dataset": {"name": name}}, {"kind": "knn", "dataset": {"name": name}}
    scenes = {"dataset": {"name": "moving_mnist", "backgrounds": name}, "views": {"kind": "temporal"}}
    for path, body, pointer in (
        ("/v1/experiments", spec | on_it, "/dataset/name"),
        ("/v1/experiments?dry_run=true", spec | on_it, "/dataset/name"),
        ("/v1/experiments", spec | {"tasks": [task]}, "/tasks/0/dataset/name"),
        ("/v1/experiments", scenes, "/dataset/backgrounds"),
        ("/v1/sweeps", sweep_spec | {"base": spec | on_it}, "/base/dataset/name"),
        ("/v1/previews", spec | on_it, "/dataset/name"),
        ("/v1/presets/digits-noise/run", {"dataset": name}, "/dataset"),
    ):
        answer = bert.post(path, json=body, headers=NO_WAIT)
        told = [{"pointer": pointer, "message": f"there is no dataset {name!r}"}]
        assert (answer.status_code, answer.json()["errors"]) == (422, told), path


@pytest.mark.parametrize("who", ["bert", "an admin"])
def test_finished_twins_are_not_reused_from_others(
    ids: dict[str, str], remote: Remote, anna: TestClient, sweep_spec: Json, who: str
) -> None:
    other = remote("bert") if who == "bert" else remote("ada", ["admin"])
    assert other.post("/v1/sweeps", json=sweep_spec).json()["counts"]["queued"] == 6
    assert anna.post("/v1/sweeps", json=sweep_spec).json()["counts"]["succeeded"] == 6
    assert other.post("/v1/datasets", files={"file": b"PK"}).json()["same_as"] is None


def test_whose_key_it_is_decides_what_an_idempotency_key_replays(anna: TestClient, bert: TestClient, spec: Json) -> None:
    key = {"Idempotency-Key": "the-same"}
    first, other = (client.post("/v1/experiments", json=spec, headers=key) for client in (anna, bert))
    assert other.json()["id"] != first.json()["id"] and "Idempotent-Replayed" not in other.headers
    assert anna.post("/v1/experiments", json=spec, headers=key).content == first.content


def test_an_admin_sees_all_and_what_he_retries_stays_its_owners(
    ids: dict[str, str], remote: Remote, anna: TestClient, bert: TestClient, api: TestClient
) -> None:
    admin = remote("ada", ["admin"])
    for client in (admin, api):  # who asks on this machine without a key is one
        assert seen(client, ids) == seen(anna, ids)
    again = admin.post(f"/v1/experiments/{ids['experiments']}/retry").json()["id"]
    assert anna.get(f"/v1/experiments/{again}").status_code == 200
    assert bert.get(f"/v1/experiments/{again}").status_code == 404
    with open_session() as session:
        row = experiments.get(session, again)
        assert (row.owner, row.key_id) == ("anna", admin.get("/v1/key").json()["id"])


def test_weights_that_two_sent_go_with_the_last(anna: TestClient, bert: TestClient, api: TestClient) -> None:
    url = anna.post("/v1/checkpoints", files={"file": WEIGHTS}, data={"name": SECRET_NAME}).json()["links"]["self"]
    path = files.checkpoint(url.rpartition("ckp_")[2])
    assert bert.delete(url).status_code == 404
    assert bert.post("/v1/checkpoints", files={"file": WEIGHTS}, data={"name": "mine"}).json()["name"] == "mine"
    assert anna.get(url).json()["name"] == SECRET_NAME
    assert anna.delete(url).status_code == 204
    assert (anna.get(url).status_code, bert.get(url).status_code, path.is_file()) == (404, 200, True)
    assert bert.delete(url).status_code == 204
    assert not path.exists()


def test_weights_from_before_there_were_owners_are_the_local_ones(anna: TestClient, api: TestClient) -> None:
    url = anna.post("/v1/checkpoints", files={"file": WEIGHTS}).json()["links"]["self"]
    id = url.rpartition("/")[2]
    description = files.description(files.checkpoint(id.removeprefix("ckp_")))
    description.write_text(f'{{"id": "{id}", "name": "old", "size": {len(WEIGHTS)}, "format": "safetensors"}}')
    assert anna.delete(url).status_code == 204
    assert anna.get(url).status_code == 404
    assert api.get(url).json()["name"] == "old"
    assert api.delete(url).status_code == 204
    assert not description.exists()
    assert api.get(url).status_code == 404


def test_a_file_that_two_uploaded_goes_with_the_last(anna: TestClient, bert: TestClient, work: Any) -> None:
    first, other = (client.post("/v1/datasets", files={"file": b"PK"}).json() for client in (anna, bert))
    with open_session() as session:
        (sha256,) = session.scalars(select(Dataset.sha256).distinct())
        session.execute(update(Dataset).values(state="failed", finished_at=func.now(), error={"code": "user", "message": "no"}))
        session.execute(update(Dataset).where(Dataset.id == other["id"]).values(state="succeeded"))
        session.commit()
    assert anna.delete(f"/v1/datasets/{first['id']}").status_code == 204
    assert files.blob(sha256).is_file()
    assert bert.delete(f"/v1/datasets/{other['id']}").status_code == 204
    assert not files.blob(sha256).exists()


def test_an_upload_stays_while_an_admin_is_at_work_on_it(anna: TestClient, remote: Remote, spec: Json, work: Any) -> None:
    admin = remote("ada", ["admin"])
    dataset = anna.post("/v1/datasets", files={"file": b"PK"}).json()["id"]
    experiment = admin.post("/v1/experiments", json=spec | {"dataset": {"name": dataset}}).json()["id"]
    with open_session() as session:
        session.execute(update(Dataset).values(state="failed", finished_at=func.now()))
        session.commit()
    answer = anna.delete(f"/v1/datasets/{dataset}")
    assert answer.status_code == 409
    assert "another owner's experiment is at work on it" in answer.text.replace(dataset, "it") and experiment not in answer.text


def test_what_a_worker_adds_to_a_search_belongs_to_its_owner(anna: TestClient, bert: TestClient, sweep_spec: Json) -> None:
    search = sweep_spec | {"axis": {"path": "views.sigma", "search": {"low": 0.1, "high": 2.5, "trainings": 24}}, "seeds": 1}
    sweep = anna.post("/v1/sweeps", json=search).json()["id"]
    assert searching.advance() > 0
    with open_session() as session:
        rows = session.execute(select(Experiment.owner, Experiment.key_id)).all()
    assert set(rows) == {("anna", anna.get("/v1/key").json()["id"])}
    assert anna.get(f"/v1/sweeps/{sweep}").json()["counts"]["queued"] == len(rows)
    assert bert.get("/v1/experiments").json()["data"] == []


# In the database


def test_all_that_clients_make_has_an_owner() -> None:
    owned = {mapper.class_.__tablename__ for mapper in Base.registry.mappers if issubclass(mapper.class_, Owned)}
    assert owned == {"experiments", "sweeps", "previews", "datasets", "mi_estimates", "checkpoints", "idempotency_keys"}


def test_every_kind_of_statement_keeps_to_its_callers_rows(ids: dict[str, str], bert: TestClient, spec: Json) -> None:
    mine = bert.post("/v1/experiments", json=spec).json()["id"]
    theirs, sweep = ids["experiments"], ids["sweeps"]
    joined = select(Sweep.id).join(SweepMember, SweepMember.sweep_id == Sweep.id)
    held = exists().where(SweepMember.experiment_id == Experiment.id, SweepMember.sweep_id == sweep)
    inner = select(Experiment.id).where(Experiment.id == theirs).scalar_subquery()
    with callers.asked_by(Caller("bert", scopes=frozenset({"read", "submit"}))), open_session() as session:
        assert session.get(Experiment, theirs) is None and session.get(Experiment, mine) is not None
        assert session.get(Experiment, theirs, with_for_update=True) is None
        assert session.scalars(select(Experiment.id)).all() == [mine]
        assert session.scalar(select(func.count()).select_from(Experiment)) == 1
        assert session.execute(joined).all() == [] and session.execute(select(Experiment.id).where(held)).all() == []
        assert session.scalar(select(inner)) is None
        for statement in (update(Experiment).values(name="taken"), delete(Experiment).where(Experiment.id == theirs)):
            session.execute(statement)
        session.commit()
        made = Experiment(id="exp_1", name="", tags=[], priority=0, spec={}, identity="", progress={})
        with callers.asked_by(None):
            session.add(made)
            session.flush()
        assert made.owner == "bert"  # of whoever made it, not of whoever asked when it was written
    with open_session() as session:
        assert {row.id: row.name for row in session.scalars(select(Experiment).where(Experiment.id.in_([mine, theirs])))} == {
            mine: "taken",
            theirs: SECRET_NAME,
        }
