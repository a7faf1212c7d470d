"""What a worker would write, without the training: claims, reports and results go through the leases as they do in earnest."""

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from app.embedded import Servers
from app.main import create_app
from app.persistence import files, keys, leases
from app.persistence.database import open_session
from app.persistence.leases import Claim

Json = dict[str, Any]


class Work:
    """A worker's side of the database."""

    def claim(self, owner: str = "worker-1", lease: float = 60) -> Claim | None:
        return self.write(lambda session: leases.claim_experiment(session, owner, "default", lease))

    def claimed(self, owner: str = "worker-1", lease: float = 60) -> Claim:
        claim = self.claim(owner, lease)
        assert claim is not None
        return claim

    def write(self, words: Callable[[Session], Any]) -> Any:
        with open_session() as session:
            said = words(session)
            session.commit()
            return said

    def succeed(
        self,
        claim: Claim,
        i_nce: float = 2.64,
        accuracy: float = 0.86,
        artifacts: dict[str, bytes] | None = None,
        labelled: bool = True,
    ) -> None:
        folder = files.attempt_folder(claim.id, claim.attempt)
        rows = []
        for name, content in (artifacts or {}).items():
            folder.mkdir(parents=True, exist_ok=True)
            Path(folder / name).write_bytes(content)
            kind = "image/png" if name.endswith(".png") else "application/octet-stream"
            rows.append({"name": name, "media_type": kind, "size": len(content), "sha256": sha256(content).hexdigest()})
        self.write(lambda session: leases.succeed(session, claim, results(claim.spec, i_nce, accuracy, labelled), rows))

    def finish_all(self, measure: Callable[[Json], tuple[float, float]]) -> list[str]:
        """Claim and finish whatever is queued; `measure` says (I_NCE, accuracy) of a spec."""
        done = []
        while (claim := self.claim()) is not None:
            self.succeed(claim, *measure(claim.spec))
            done.append(claim.id)
        return done


def results(spec: Json, i_nce: float, accuracy: float, labelled: bool = True) -> Json:
    """As `ml.experiment.run` ends; of what the views share a quarter is nuisance."""
    log_k = math.log(spec["mi"]["k"])
    estimate = {"value": i_nce, "stderr": 0.02, "log_k": log_k, "saturated": i_nce > log_k - 1, "low": False, "kind": "lower"}
    score = {"metric": "accuracy", "value": accuracy, "ci": [accuracy - 0.03, accuracy + 0.03], "chance": 0.1}
    return {
        "mi": {"infonce": estimate},
        "information": information(estimate, labelled),
        "tasks": {task["name"]: score for task in spec["tasks"]},
        "quality": {
            "lidar": 12.5,
            "rankme": 20.0 * accuracy,
            "alignment": 0.4,
            "uniformity": -2.0,
            "alpha_req": None,
            "items": 719,
            "views": 14,
        },
        "timing": {"data": 0.1, "pretrain": 3.5, "information": 0.2, "tasks": 0.1, "pairs_per_second": 21942.857142857141},
        "hardware": {"device": "cpu", "cpu": "a processor", "threads": 1, "versions": {"torch": "2.13.0"}},
        "data": {"digest": "0" * 64, "train": 1078, "test": 719},
    }


def information(total: Json, labelled: bool) -> Json:
    """As `ml.information.measure` ends, with classes or without."""
    found = {"total": total, "items": 539}
    if not labelled:
        names = ("classes", "nuisance", "task", "probe", "missing", "target", "by_target")
        return found | dict.fromkeys(names)

    def estimate(value: float, kind: str = "lower") -> Json:
        return {"value": value, "stderr": 0.03, "kind": kind}

    views = {"v1": estimate(1.6), "v2": estimate(1.5)}
    return found | {
        "classes": 10,
        "nuisance": estimate(0.25 * total["value"]) | {"log_k": 3.9},
        "task": estimate(0.75 * total["value"], "neither"),
        "probe": views | {"both": estimate(1.8), "entropy": 2.3, "fitted_on": 1078},
        "missing": views
        | {
            "x": estimate(2.2),
            "missing_v1": estimate(0.6, "neither"),
            "missing_v2": estimate(0.7, "neither"),
            "holds": False,
            "accuracy": 0.97,
            "steps": 50,
        },
        "target": "label",
        "by_target": {},
    }


@pytest.fixture
def work(database: Servers) -> Work:
    return Work()


@pytest.fixture
def spec() -> Json:
    """The smallest experiment: what it leaves out has a default."""
    return {"dataset": {"name": "digits"}, "views": {"kind": "noise", "sigma": 0.7}}


@pytest.fixture
def sweep_spec(spec: Json) -> Json:
    return {"base": spec, "axis": {"path": "views.sigma", "values": [0.1, 0.7, 2.5]}, "seeds": 2}


@pytest.fixture
def submit(api: TestClient, spec: Json) -> Callable[..., Json]:
    """Submits an experiment, which differs from the smallest one in these fields."""

    def submit(**fields: Any) -> Json:
        answer = api.post("/v1/experiments", json=spec | fields)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    return submit


Client = Callable[..., TestClient]


@pytest.fixture
def remote(database: Servers) -> Iterator[Client]:
    """Clients elsewhere, whom the service asks for keys: one of an owner, with these scopes and quotas, or one without a key."""
    app = create_app()

    def remote(owner: str | None = None, scopes: Sequence[str] = ("read", "submit"), **quotas: int | None) -> TestClient:
        client = TestClient(
            app, base_url="https://sweetspot.example", client=("203.0.113.7", 50000), raise_server_exceptions=False
        )
        client.follow_redirects = False
        if owner is not None:
            client.headers["Authorization"] = f"Bearer {new_key(owner, scopes, **quotas)[1]}"
        return client

    yield remote


def new_key(
    owner: str, scopes: Sequence[str] = ("read", "submit"), expires_at: datetime | None = None, **quotas: int | None
) -> tuple[str, str]:
    """Id and secret of a key that was just made."""
    with open_session() as session:
        key, secret = keys.create(session, f"{owner}'s key", owner, scopes, expires_at, {"per_minute": None, **quotas})
        session.commit()
        return key.id, secret
