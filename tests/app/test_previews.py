"""`/v1/previews`: what view pairs look like, made by a worker."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.persistence import leases

Json = dict[str, Any]
PNG = b"\x89PNG\r\n\x1a\n and so on"
NOW = {"Prefer": "wait=0"}


@contextmanager
def painter(work: Any) -> Iterator[None]:
    """A worker that paints the same picture whatever it is asked for."""
    done = Event()

    def paint() -> None:
        while not done.wait(0.01):
            claim = work.write(lambda session: leases.claim_preview(session, "worker-1", 60))
            if claim:
                work.write(lambda session, claim=claim: leases.succeed_preview(session, claim, PNG))

    with ThreadPoolExecutor(1) as pool:
        painting = pool.submit(paint)
        yield
        done.set()
        painting.result()


def test_the_picture_itself_where_it_is_ready_in_time(api: TestClient, work: Any, spec: Json) -> None:
    with painter(work):
        answer = api.post("/v1/previews", json=spec)
    assert (answer.status_code, answer.headers["Content-Type"], answer.content) == (200, "image/png", PNG)
    again = api.get(answer.headers["Location"])
    assert (again.status_code, again.content) == (200, PNG)
    assert api.get(answer.headers["Location"], headers={"If-None-Match": again.headers["ETag"]}).status_code == 304


def test_else_a_location_that_has_it_once_it_is_there(api: TestClient, work: Any, spec: Json) -> None:
    answer = api.post("/v1/previews", json=spec, headers=NOW)
    url = answer.headers["Location"]
    assert (answer.status_code, answer.json()["state"], answer.json()["links"]["self"]) == (202, "queued", url)
    pending = api.get(url)
    assert (pending.status_code, pending.headers["Content-Type"]) == (202, "application/json")
    with painter(work):
        assert api.get(url, headers={"Prefer": "wait=10"}).content == PNG


def test_a_worker_is_told_the_resolved_dataset_and_the_views(api: TestClient, work: Any, spec: Json) -> None:
    api.post("/v1/previews", json=spec, headers=NOW)
    claim = work.write(lambda session: leases.claim_preview(session, "worker-1", 60))
    dataset = {"name": "digits", "image_size": 16, "version": None, "digits": None, "backgrounds": None}
    assert claim.spec == {"dataset": dataset, "views": {"kind": "noise", "sigma": 0.7}}


def test_a_repeated_post_leads_to_the_same_picture(api: TestClient, work: Any, spec: Json) -> None:
    key = {"Idempotency-Key": "k"}
    first = api.post("/v1/previews", json=spec, headers=NOW | key)
    again = api.post("/v1/previews", json=spec, headers=key)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert again.headers["Location"] == first.headers["Location"]
    assert again.json() == first.json()


def test_a_failure_says_why(api: TestClient, work: Any, spec: Json) -> None:
    url = api.post("/v1/previews", json=spec, headers=NOW).headers["Location"]
    claim = work.write(lambda session: leases.claim_preview(session, "worker-1", 60))
    work.write(lambda session: leases.fail(session, claim, {"code": "user", "message": "digits is gone"}))
    answer = api.get(url)
    assert (answer.status_code, answer.json()["code"]) == (422, "user")
    assert "digits is gone" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"views": {"kind": "crop", "area": 0}}, "/views/area"),
        ({"views": {"kind": "twirl"}}, "/views/kind"),
        ({"dataset": {"name": "nowhere"}}, "/dataset/name"),
        ({"pairs": 8}, "/pairs"),
    ],
)
def test_a_bad_recipe_names_the_field(api: TestClient, spec: Json, fields: Json, pointer: str) -> None:
    answer = api.post("/v1/previews", json=spec | fields)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("views", "pointer"),
    [
        ({"kind": "color_split"}, "/views/kind"),
        ({"kind": "temporal"}, "/views/kind"),
        ({"kind": "patches", "size": 12, "distance": 8}, "/views/distance"),
        ({"kind": "patch_grid", "size": 16, "stride": 4}, "/views/stride"),
    ],
)
def test_views_that_do_not_fit_are_refused_as_in_an_experiment(api: TestClient, spec: Json, views: Json, pointer: str) -> None:
    of_preview, of_experiment = (api.post(f"/v1/{path}", json=spec | {"views": views}) for path in ("previews", "experiments"))
    assert of_preview.status_code == of_experiment.status_code == 422
    assert of_preview.json()["errors"] == of_experiment.json()["errors"]
    assert [error["pointer"] for error in of_preview.json()["errors"]] == [pointer]


def test_there_is_no_such_preview(api: TestClient) -> None:
    assert api.get(f"/v1/previews/prv_{'0' * 32}").status_code == api.get("/v1/previews/1").status_code == 404
