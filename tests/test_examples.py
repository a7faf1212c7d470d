"""Every file of examples/ does what it says: specs are asked for, shell scripts and the notebook run with a real worker."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi.testclient import TestClient
from PIL import Image

from app.embedded import Servers, free_port
from app.persistence.database import engine
from app.persistence.models import Base
from app.settings import settings

FOLDER = Path(__file__).parents[1] / "examples"
SPECS = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".yaml", ".json"))
RUN = {"curl.sh", "estimate-mi.sh", "notebook.py", "sweetspot.ipynb"}
SIZES = {
    **{f"cifar10/cifar-10-batches-bin/data_batch_{number}.bin": 10_000 * 3073 for number in range(1, 6)},
    "cifar10/cifar-10-batches-bin/test_batch.bin": 10_000 * 3073,
    "stl10/stl10_binary/train_X.bin": 5_000 * 27_648,
    "stl10/stl10_binary/train_y.bin": 5_000,
    "stl10/stl10_binary/test_X.bin": 8_000 * 27_648,
    "stl10/stl10_binary/test_y.bin": 8_000,
}
SMALL = {
    r'(STEPS = |"steps": )\d+': r"\g<1>4",
    r'("values": \[[^,\]]+, [^,\]]+)[^\]]*': r"\1",
    r'"seeds": \d+': '"seeds": 1',
    r"repeats=\d+": "repeats=2",
}
LIKE_A_NOTEBOOK = """
import ast, json, sys

names = {"__name__": "__main__"}
for cell in json.load(sys.stdin):
    body = ast.parse(cell).body
    shown = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
    value = eval(compile(shown, "<cell>", "eval"), names) if shown else None
    for show in ("_repr_png_", "_repr_html_", "_repr_mimebundle_"):
        if hasattr(value, show):
            print(show, len(getattr(value, show)()) > 0)
    print(type(value).__name__)
"""


@pytest.fixture(scope="module")
def service(embedded: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The API and one worker on an empty database; the environment that names them."""
    with engine().begin() as connection:  # lest the worker take what other tests left
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
    folder, port = tmp_path_factory.mktemp("examples"), free_port()
    api = ["uvicorn", "app.main:create_app", "--factory", "--port", str(port), "--log-level", "warning"]
    environment = {**os.environ, "SWEETSPOT_THREADS": "1", "SWEETSPOT_URL": f"http://127.0.0.1:{port}"}
    processes = []
    for name, module in (("api", api), ("worker", ["workers", "--name", "examples"])):
        with (folder / f"{name}.log").open("wb") as log:
            started = subprocess.Popen([sys.executable, "-m", *module], env=environment, stdout=log, stderr=log)
        processes.append(started)
    try:
        await_answer(f"{environment['SWEETSPOT_URL']}/readyz")
        python = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # which has numpy, for the scripts
        yield environment | {"PATH": python}
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(60)


@pytest.fixture
def datasets(embedded: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand-ins for the datasets of the specs: files of the right sizes, of which a dry run reads no more than that."""
    for file, length in SIZES.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as opened:
            opened.truncate(length)
    (tmp_path / "div2k").mkdir()
    for number in range(20):
        Image.new("RGB", (800, 700)).save(tmp_path / "div2k" / f"{number}.jpg")
    monkeypatch.setenv("SWEETSPOT_DATASETS", str(tmp_path))
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


def await_answer(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, url
        time.sleep(0.1)


def quicker(text: str) -> str:
    """The example with its numbers made small."""
    for number, small in SMALL.items():
        text = re.sub(number, small, text)
    return text


def run(command: list[str], service: dict[str, str], folder: Path, typed: str | None = None) -> str:
    done = subprocess.run(command, env=service, cwd=folder, input=typed, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def percent_cells(text: str) -> list[tuple[str, str]]:
    """The cells of a script with `# %%` between them: kind and source."""
    cells = []
    for kind, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n)*)", text, re.MULTILINE):
        lines = body.strip("\n").split("\n")
        said = [line.removeprefix("#").removeprefix(" ") for line in lines] if kind else lines
        cells.append(("markdown" if kind else "code", "\n".join(said)))
    return cells


def notebook() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "sweetspot.ipynb").read_text()))


def test_every_example_is_tested_here() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == {*SPECS, *RUN}


@pytest.mark.usefixtures("datasets")
@pytest.mark.parametrize("name", SPECS)
def test_a_spec_can_be_submitted(name: str, api: TestClient) -> None:
    spec = yaml.safe_load((FOLDER / name).read_text())
    collection = "sweeps" if "axis" in spec else "experiments"
    answer = api.post(f"/v1/{collection}?dry_run=true", json=spec)
    assert answer.status_code == 200, answer.text
    assert answer.json()["cost"]["trainings"] >= 1


def test_the_notebook_is_one_without_outputs() -> None:
    found = notebook()
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    assert found["metadata"]["kernelspec"]["language"] == "python"
    assert len({cell["id"] for cell in found["cells"]}) == len(found["cells"])
    for cell in found["cells"]:
        assert cell["metadata"] == {} and isinstance(cell["source"], list)
        extra = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert cell.keys() == {"cell_type", "id", "metadata", "source"} | extra
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
        if cell["cell_type"] == "code":
            ast.parse("".join(cell["source"]))


def test_the_notebook_and_the_script_are_the_same_cells() -> None:
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook()["cells"]]
    assert cells == percent_cells((FOLDER / "notebook.py").read_text())


def test_the_notebook_and_the_script_run(service: dict[str, str], tmp_path: Path) -> None:
    cells = ["".join(cell["source"]) for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    asked = json.dumps([quicker(cell) for cell in cells])
    shown = run([sys.executable, "-c", LIKE_A_NOTEBOOK], service, tmp_path, asked).splitlines()
    for kind, show in (("Png", "_repr_png_"), ("Curve", "_repr_html_"), ("DataFrame", "_repr_html_")):
        assert shown[shown.index(kind) - 1] == f"{show} True"
    assert re.search("^_repr_mimebundle_ True\n(Layer|VConcat)?Chart$", "\n".join(shown), re.MULTILINE)
    assert any("torchvision" in line for line in shown)
    assert (tmp_path / "curve.svg").read_text().startswith("<svg")

    (tmp_path / "curve.svg").unlink()
    script = quicker((FOLDER / "notebook.py").read_text())
    assert "loss" in run([sys.executable, "-c", script], service, tmp_path)
    assert (tmp_path / "curve.svg").read_text().startswith("<svg")


def test_the_session_with_curl_runs(service: dict[str, str], tmp_path: Path) -> None:
    script = quicker((FOLDER / "curl.sh").read_text())
    said = run(["sh", "-c", script, "curl.sh", "drawn.svg"], service, tmp_path)
    assert "succeeded" in said and "\nclassification: " in said and said.endswith("drawn.svg\n")
    assert (tmp_path / "drawn.svg").read_text().startswith("<svg")


def test_the_estimate_with_curl_runs(service: dict[str, str], tmp_path: Path) -> None:
    script = quicker((FOLDER / "estimate-mi.sh").read_text())
    said = run(["sh", "-c", script, "estimate-mi.sh"], service, tmp_path)
    cca = re.search(r"^cca +(\S+) ± ", said, re.MULTILINE)
    assert cca is not None and float(cca[1]) == pytest.approx(2.0, abs=0.15)
