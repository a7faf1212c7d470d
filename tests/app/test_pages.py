"""The web pages over HTTP: what they answer, what they let through, and their files. A browser is in `test_browser.py`."""

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.persistence import experiments
from app.routers.pages import STATIC, digest
from ml.spec import ExperimentSpec

Json = dict[str, Any]
SCRIPT = "<script>alert(1)</script>"
SHELLS = ("/", "/new", "/compare")


@pytest.mark.parametrize("path", SHELLS)
def test_a_page_is_html_that_is_asked_for_anew(api: TestClient, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_pages_are_not_in_the_api_document(api: TestClient) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    assert not {*SHELLS, "/sweeps/{sweep_id}", "/experiments/{experiment_id}"} & set(paths)


def test_names_are_escaped(api: TestClient, submit: Callable[..., Json], sweep_spec: Json) -> None:
    sweep = api.post("/v1/sweeps", json=sweep_spec | {"name": SCRIPT}).json()
    experiment = submit(name=SCRIPT)
    for path in (f"/sweeps/{sweep['id']}", f"/experiments/{experiment['id']}", "/experiments/<script>alert(1)"):
        page = api.get(path).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    "path", [f"/sweeps/swp_{'0' * 32}", "/sweeps/nothing", f"/experiments/exp_{'0' * 32}", "/experiments/%00"]
)
def test_an_unknown_id_is_a_page_that_says_so(api: TestClient, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "There is no such" in answer.text


def test_pages_hold_no_inline_script_and_no_inline_style(api: TestClient, submit: Callable[..., Json], sweep_spec: Json) -> None:
    sweep = api.post("/v1/sweeps", json=sweep_spec).json()
    for path in (*SHELLS, f"/sweeps/{sweep['id']}", f"/experiments/{submit()['id']}"):
        page = api.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", page)


def test_all_that_pages_name_is_there(api: TestClient, submit: Callable[..., Json], sweep_spec: Json) -> None:
    sweep = api.post("/v1/sweeps", json=sweep_spec).json()
    pages = (*SHELLS, f"/sweeps/{sweep['id']}", f"/experiments/{submit()['id']}")
    named = {url for path in pages for url in re.findall(r'(?:src|href)="(/[^"]*)"', api.get(path).text)}
    assert {url for url in named if api.get(url).status_code != 200} == set()
    assert all(url.startswith(f"/static/{digest()}/") for url in named if url.startswith("/static"))


def test_modules_import_only_what_is_there() -> None:
    for module in (STATIC / "js").glob("*.js"):
        for imported in re.findall(r'from "([^"]+)"', module.read_text()):
            assert (module.parent / imported).is_file(), f"{module.name} imports {imported}"


def test_files_under_their_digest_are_kept_and_others_asked_for_anew(api: TestClient) -> None:
    kept = api.get(f"/static/{digest()}/style.css")
    assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
    plain = api.get("/static/style.css")
    assert plain.headers["cache-control"] == "no-cache"
    assert plain.text == kept.text
    assert api.get("/static/style.css", headers={"If-None-Match": plain.headers["etag"]}).status_code == 304
    assert api.get("/static/js/home.js").headers["content-type"].startswith("text/javascript")
    assert api.get("/static/0000000000000000/style.css").status_code == 404
    assert api.get("/static/../main.py").status_code == 404


def test_vendored_files_are_those_of_their_list() -> None:
    vendor = STATIC / "vendor"
    listed = re.findall(r"^\S+ +\S+ +(\S+\.js) +([0-9a-f]{64})$", (vendor / "VERSIONS.txt").read_text(), re.MULTILINE)
    assert {name for name, _ in listed} == {path.name for path in vendor.glob("*.js")}
    for name, digest_of_file in listed:
        assert sha256(Path(vendor / name).read_bytes()).hexdigest() == digest_of_file


def test_five_hundred_experiments_are_listed_page_by_page(api: TestClient, work: Any, spec: Json) -> None:
    asked = [(ExperimentSpec.model_validate(spec | {"name": f"number {index}", "seed": index}), None) for index in range(500)]
    work.write(lambda session: list(experiments.create_all(session, asked)))
    seen: list[str] = []
    cursor = ""
    while True:
        page = api.get(f"/v1/experiments?limit=25{cursor}").json()
        seen += [row["name"] for row in page["data"]]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == [f"number {index}" for index in reversed(range(500))]
    assert len(api.get("/v1/experiments?q=number 49&state=queued").json()["data"]) == 11
