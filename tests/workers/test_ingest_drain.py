"""A worker that is shut down while it decodes gives the upload back."""

import io
import zipfile
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from app.settings import settings


def test_sigterm_gives_the_upload_back_and_another_worker_decodes_it(new_worker: Any, api: TestClient, eventually: Any) -> None:
    content, picture = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(picture, "png")
    with zipfile.ZipFile(content, "w") as archive:
        for number in range(8000):
            archive.writestr(f"{number % 2}/{number}.png", picture.getvalue())
    first = new_worker("first")
    path = api.post("/v1/datasets", files={"file": ("many.zip", content.getvalue())}).json()["links"]["self"]
    eventually(lambda: api.get(path).json()["progress"]["stage"] == "decode")
    assert first.stop() == 0
    given_back = api.get(path).json()
    assert (given_back["state"], given_back["progress"]["stage"]) == ("processing", None)
    assert not [*settings().uploads_dir.glob(".*")]
    new_worker("second")
    eventually(lambda: api.get(path).json()["state"] == "ready")
    assert api.get(path).json()["facts"]["train"] == 4800
