"""The web pages in a real browser, upon the real service."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.embedded import Servers

Json = dict[str, Any]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SMALL = {
    "dataset": {"name": "digits", "image_size": 8},
    "views": {"kind": "noise", "sigma": 0.5},
    "encoder": {"kind": "small_conv", "width": 4},
    "method": {"kind": "simclr", "projection": 8},
    "pretrain": {"batch_size": 32},
    "mi": {"k": 32},
}
SOON = 15_000  # milliseconds within which what must be seen is seen, on a busy machine
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000 1f15c4890000000d49444154789c6360f8cf50"
    "0f0003860180 5a347d6b0000000049454e44ae426082"
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def address(embedded: Servers) -> Iterator[str]:
    """Where the service answers over real HTTP."""
    from app.main import create_app  # noqa: PLC0415

    server = uvicorn.Server(uvicorn.Config(create_app(), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture
def refusals() -> list[str]:
    """What the console may say of answers that a test provokes."""
    return []


@pytest.fixture
def page(browser: Browser, address: str, database: Servers, refusals: list[str]) -> Iterator[Page]:
    """A page on an empty database. Nothing may go wrong in it that its console would tell of."""
    context = browser.new_context(base_url=address, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(SOON)
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    yield opened
    context.close()
    assert [words for words in said if not any(refusal in words for refusal in refusals)] == []


@pytest.fixture
def service(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


@pytest.fixture
def noise_sweep(service: httpx.Client, sweep_spec: Json) -> Callable[..., Json]:
    """Submits a sweep of noise with one seed, and answers it."""

    def submit(**fields: Any) -> Json:
        answer = service.post("/v1/sweeps", json=sweep_spec | {"seeds": 1} | fields)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    return submit


def measured(spec: Json) -> tuple[float, float]:
    """An inverted U over the noise."""
    sigma = spec["views"]["sigma"]
    return 5.0 / (1 + sigma), 0.9 - 0.1 * abs(sigma - 0.7)


def points(page: Page) -> Any:
    return page.locator("#curve .hits_marks path")


def test_a_curve_grows_without_reloading_and_its_points_open_experiments(page: Page, noise_sweep: Any, work: Any) -> None:
    sweep = noise_sweep(name="<script>alert(1)</script>")
    page.goto(f"/sweeps/{sweep['id']}")
    expect(page.get_by_role("heading", level=1)).to_have_text("<script>alert(1)</script>")
    expect(page.locator("#verdict")).to_contain_text("No verdict yet")
    page.evaluate("window.neverReloaded = true")
    claim = work.claimed()
    work.succeed(claim, *measured(claim.spec), artifacts={"preview.png": PIXEL})
    expect(points(page)).to_have_count(1, timeout=SOON)
    work.finish_all(measured)
    expect(points(page)).to_have_count(3, timeout=SOON)
    expect(page.locator("#status .state")).to_have_text("✓succeeded")
    row = page.get_by_role("row", name="0.1 ")
    expect(row.first).to_contain_text("1.14")  # nats nuisance, a quarter of 4.55
    expect(page.locator("#points")).to_contain_text("about the label (nats)")
    assert page.evaluate("window.neverReloaded")
    page.mouse.wheel(0, -2000)
    points(page).last.hover(force=True)
    expect(page.locator(".hover-card")).to_contain_text("nats")
    page.get_by_role("link", name="0.1, experiment 1").hover()
    expect(page.locator(".hover-card img")).to_have_attribute("src", f"/v1/experiments/{claim.id}/preview.png")
    points(page).first.click(force=True)
    page.wait_for_url("**/experiments/exp_*")
    expect(page.locator("#crumbs")).to_contain_text("σ = ")


def test_marks_are_explained_under_the_table_and_no_winner_is_named_where_there_is_none(
    page: Page, noise_sweep: Any, work: Any
) -> None:
    sweep = noise_sweep()
    work.finish_all(lambda _: (6.0, 0.8))
    page.goto(f"/sweeps/{sweep['id']}")
    expect(page.locator("#points tbody tr").first).to_contain_text("≥ 6.00")
    expect(page.locator("#points .marks")).to_have_text("≥ saturated: within a nat of log K, read “at least”")
    expect(page.locator("#downloads")).to_contain_text("Best recipe so far")


def test_operations_are_ranked_by_what_they_cost(page: Page, noise_sweep: Any, spec: Json, work: Any) -> None:
    base = spec | {"views": {"kind": "augment", "blur_p": 0.5}}
    sweep = noise_sweep(base=base, axis={"path": "views", "ablate": True})
    work.finish_all(lambda found: (2.0, 0.6 if found["views"]["crop_p"] == 0 else 0.8 + 0.1 * (found["views"]["flip_p"] == 0)))
    page.goto(f"/sweeps/{sweep['id']}")
    ranked = page.locator("#ablation tbody th")
    expect(ranked.first).to_have_text("crop")
    expect(ranked.last).to_have_text("flip")
    expect(page.locator("#ablation tbody tr").first).to_contain_text("20.0 points")
    page.get_by_role("link", name="Use as a start").click()
    expect(page.get_by_role("radio", name="Leave out each operation")).to_be_checked()
    expect(page.locator("#cost")).to_contain_text("5 trainings")


def test_a_curve_is_downloaded_in_the_form_that_is_asked_for(page: Page, noise_sweep: Any, work: Any) -> None:
    sweep = noise_sweep()
    work.finish_all(measured)
    page.goto(f"/sweeps/{sweep['id']}")
    for name, start in {"SVG": b"<svg", "CSV": b"value,label,i_nce"}.items():
        with page.expect_download() as found:
            page.get_by_role("link", name=name, exact=True).click()
        assert found.value.suggested_filename == f"curve.{name.lower()}"
        assert Path(found.value.path()).read_bytes().startswith(start)


def test_several_sweeps_are_compared_in_one_figure(page: Page, noise_sweep: Any, work: Any) -> None:
    for name in ("some noise", "more noise"):
        noise_sweep(name=name, axis={"path": "views.sigma", "values": [0.2, 1.5] if name == "some noise" else [0.4, 2.0]})
    work.finish_all(measured)
    page.goto("/")
    page.get_by_label("Words").fill("some")
    expect(page.locator("#sweeps tbody tr")).to_have_count(1)
    page.get_by_role("checkbox", name="Compare some noise").check()
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("checkbox", name="Compare more noise").check()
    page.get_by_role("link", name="Compare 2").click()
    expect(page.locator("#curves .hits_marks path")).to_have_count(4, timeout=SOON)
    expect(page.locator("#curves")).to_contain_text("some noise")
    expect(page.get_by_role("region", name="Sweeps that are compared")).to_contain_text("batch size by default, K 512")
    page.emulate_media(color_scheme="dark")
    for name, signs in {"CSV": ["more noise,views.sigma"], "SVG": ["<svg", "more noise", 'fill="white"'], "PNG": []}.items():
        with page.expect_download() as found:
            page.get_by_role("button", name=name).click()
        content = Path(found.value.path()).read_bytes()
        assert content.startswith(b"\x89PNG") == (name == "PNG")
        assert all(sign.encode() in content for sign in signs)


def test_an_experiment_is_cancelled_once_it_is_confirmed(page: Page, service: httpx.Client, spec: Json) -> None:
    experiment = service.post("/v1/experiments", json=spec).json()
    page.goto(f"/experiments/{experiment['id']}")
    expect(page.locator("#status .state")).to_have_text("○queued")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator("#status .state")).to_have_text("–cancelled")
    expect(page.locator("#announcer")).to_have_text("Experiment: cancelled")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    assert service.get(f"/v1/experiments/{experiment['id']}").json()["state"] == "cancelled"


def test_lists_are_filtered_and_paged(page: Page, service: httpx.Client, spec: Json) -> None:
    for index in range(30):
        service.post("/v1/experiments", json=spec | {"name": f"number {index}", "seed": index})
    page.goto("/")
    rows = page.locator("#experiments tbody tr")
    expect(rows).to_have_count(25)
    page.locator("#experiments").get_by_role("button", name="Older").click()
    expect(rows).to_have_count(5)
    page.get_by_label("Words").fill("number 2")
    expect(rows).to_have_count(11)
    page.get_by_label("State").select_option("failed")
    expect(page.locator("#experiments")).to_contain_text("Nothing fits")
    assert page.url.endswith("?q=number+2&state=failed")


def test_the_form_says_what_is_wrong_at_the_field_and_follows_its_json(page: Page, refusals: list[str]) -> None:
    refusals.append("422 (Unprocessable")
    page.goto("/new")
    expect(page.locator("#cost")).to_contain_text("about")
    page.get_by_label("Sigma").fill("-1")
    sigma = page.locator("[data-pointer='/views/sigma']")
    expect(sigma.locator(".error")).to_contain_text("greater than or equal to 0")
    expect(page.get_by_label("Sigma")).to_have_attribute("aria-invalid", "true")
    page.get_by_role("textbox", name="As JSON").fill('{"dataset": {"name": "digits"}, "views": {"kind": "crop", "area": 0.3}}')
    expect(page.get_by_label("Family")).to_have_value("crop")
    expect(page.locator("#f-views-area")).to_have_value("0.3")
    page.get_by_role("radio", name="A sweep").check()
    expect(page.get_by_label("What varies")).to_have_value("views.area")
    expect(page.locator("#cost")).to_contain_text("21 trainings")
    assert '"path": "views.area"' in page.get_by_role("textbox", name="As JSON").input_value()


def test_what_cannot_be_read_cannot_be_submitted(page: Page) -> None:
    page.goto("/new")
    expect(page.locator("#cost")).to_contain_text("about")
    text = page.get_by_role("textbox", name="As JSON")
    text.fill('{"dataset": {"name": "digits"')
    expect(page.locator("#json-error")).to_contain_text("Not read")
    expect(page.locator("#cost")).not_to_contain_text("about")
    expect(page.locator("#submit")).to_have_attribute("aria-disabled", "true")
    expect(page.locator("#submit-note")).to_contain_text("cannot be submitted")
    page.locator("#submit").click(force=True)
    expect(text).to_be_focused()
    text.fill(json.dumps(SMALL))
    expect(page.locator("#cost")).to_contain_text("about")
    expect(page.locator("#submit")).not_to_have_attribute("aria-disabled", "true")
    expect(page.locator("#submit-note")).to_be_empty()


SEARCH = {"path": "views.sigma", "search": {"low": 2, "high": 1}}


@pytest.mark.parametrize(
    ("document", "told", "marked"),
    [
        ({"stepz": 3}, "/stepz: there is no field “stepz”", []),
        ({"axis": SEARCH}, "low must be below high", ["f-axis-search-low", "f-axis-search-high"]),
        ({"axis": {"path": "views.sigma", "values": [1, 1]}}, "each value once", ["f-axis-values"]),
        ({"axis": {"path": "views.sigma", "values": [1, 2], "labels": ["one"]}}, "labels must name", ["f-axis-labels"]),
    ],
)
def test_problems_are_told_beside_submit_and_mark_what_they_are_about(
    page: Page, refusals: list[str], document: Json, told: str, marked: list[str]
) -> None:
    refusals.append("422 (Unprocessable")
    page.goto("/new")
    asked = {"base": SMALL} | document if "axis" in document else SMALL | document
    page.get_by_role("textbox", name="As JSON").fill(json.dumps(asked))
    expect(page.locator("#problems .failure")).to_contain_text(told)
    invalid = page.locator("#form [aria-invalid]")
    assert [one.get_attribute("id") for one in invalid.all()] == marked


def test_values_that_are_not_read_as_they_look_are_told(page: Page, refusals: list[str]) -> None:
    refusals.append("422 (Unprocessable")
    page.goto("/new")
    page.get_by_role("radio", name="A sweep").check()
    for words, told in {
        "0,1, 0,2": "0 stands there twice",
        "0.1 0.2": "“0.1 0.2” is no number",
        "0,1, 2,5": "Read as 0; 1; 2; 5",
    }.items():
        page.get_by_label("Values", exact=True).fill(words)
        expect(page.locator(".doubt")).to_contain_text(told)
    page.get_by_label("Values", exact=True).fill("0.1, 0.2")
    expect(page.locator(".doubt")).to_be_empty()


def test_only_targets_that_the_dataset_has_are_offered(page: Page) -> None:
    page.goto("/new")
    target = page.locator("#f-tasks-0-target option")
    expect(target).to_have_text(["label (default)", "label"])
    page.get_by_label("Dataset", exact=True).select_option("moving_mnist")
    expect(target).to_have_text(["choose one", "digit", "background"])


@pytest.fixture
def worker(database: Servers, tmp_path: Path) -> Iterator[None]:
    """A real worker."""
    with (tmp_path / "worker.log").open("wb") as log:
        environment = {**os.environ, "SWEETSPOT_THREADS": "1", "SWEETSPOT_IDLE_LOOK_SECONDS": "1"}
        process = subprocess.Popen([sys.executable, "-m", "workers"], env=environment, stdout=log, stderr=log)
        yield
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_from_the_form_with_its_preview_to_the_results(page: Page, worker: None) -> None:
    page.goto("/new")
    page.get_by_role("textbox", name="As JSON").fill(json.dumps(SMALL))
    expect(page.get_by_label("Image size")).to_have_value("8")
    page.locator("#fold-Pretraining summary").first.click()
    page.get_by_label("Steps", exact=True).fill("20")
    expect(page.locator("#preview img")).to_be_visible(timeout=60_000)
    assert page.locator("#preview img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    page.get_by_role("button", name="Submit the experiment").click()
    page.wait_for_url("**/experiments/exp_*")
    expect(page.locator("#status .state")).to_have_text("✓succeeded", timeout=60_000)
    expect(page.locator(".headline")).to_contain_text("classification")
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)
    expect(page.locator("#views img")).to_be_visible()
    expect(page.locator("#metrics figure svg").first).to_be_visible()


def test_nobody_is_kept_out(page: Page, noise_sweep: Any, work: Any) -> None:
    sweep = noise_sweep(name="noise")
    claim = work.claimed()
    work.succeed(claim, *measured(claim.spec), artifacts={"preview.png": PIXEL})
    work.finish_all(measured)
    shown = {
        "/": "#experiments table",
        "/new": "#cost .big",
        f"/sweeps/{sweep['id']}": "#curve svg",
        f"/experiments/{claim.id}": "#views img",
        f"/compare?sweeps={sweep['id']}": "#curves svg",
        "/sweeps/nothing": "h1",
    }
    for path, sign in shown.items():
        if path != "/sweeps/nothing":
            page.goto(path)
            page.wait_for_selector(sign)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                rules = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}  # all else is as in the light
                found = Axe().run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]
                grave = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
                assert grave == [], f"{path} in {scheme}"


def test_a_page_is_used_by_keyboard_alone(page: Page, noise_sweep: Any, work: Any) -> None:
    sweep = noise_sweep(name="noise")
    work.finish_all(measured)
    page.goto(f"/sweeps/{sweep['id']}")
    page.wait_for_selector("#points table")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.get_by_role("link", name="0.1, experiment 1").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/experiments/exp_*")
