"""A worker that is shut down while it estimates gives the estimate back."""

import io
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from app.persistence import files


def test_sigterm_gives_the_estimate_back_and_another_worker_makes_it(new_worker: Any, api: TestClient, eventually: Any) -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 600, 2))
    content = io.BytesIO()
    np.savez(content, x=x, y=x + y)
    first = new_worker("first")
    asked = {"estimators": "infonce", "repeats": "3"}
    made = api.post("/v1/mi-estimates", data=asked, files={"file": ("mine.npz", content.getvalue())}).json()
    path = made["links"]["self"]
    eventually(lambda: api.get(path).json()["progress"]["stage"])
    assert first.stop() == 0
    given_back = api.get(path).json()
    assert (given_back["state"], given_back["attempt"], given_back["progress"]["stage"]) == ("queued", 1, None)
    assert files.arrays(made["id"]).exists()
    new_worker("second")
    eventually(lambda: api.get(path).json()["finished_at"])
    found = api.get(path).json()
    assert (found["state"], found["attempt"], found["error"]) == ("succeeded", 2, None)
