"""The API's process stays small and starts fast: neither the trainers nor the worker nor the drawing are loaded with it."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    code = "import app.main, json, sys; app.main.create_app(); print(json.dumps(sorted(sys.modules)))"
    return set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout))


@pytest.mark.parametrize("module", ["torch", "sklearn", "celery.worker", "workers", "altair", "vl_convert", "scipy.stats"])
def test_the_api_starts_without(loaded: set[str], module: str) -> None:
    assert module not in loaded


def test_of_the_science_it_loads_the_vocabulary_and_the_curve(loaded: set[str]) -> None:
    assert {name for name in loaded if name.startswith("ml.")} == {"ml.spec", "ml.curve", "ml.search"}
