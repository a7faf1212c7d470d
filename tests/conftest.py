"""Fixtures: the real embedded servers, once a session, and the API upon them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

# Before torch is imported: on tensors as small as the tests' a second thread waits longer than it works.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Shapes in signatures are checked while testing; ml.spec and ml.curve are pydantic's, which reads annotations for itself.
# The hook stays, because variants are imported when they are first looked up.
install_import_hook(
    [
        "ml.views",
        "ml.datasets",
        "ml.encoders",
        "ml.methods",
        "ml.mi",
        "ml.tasks",
        "ml.quality",
        "ml.supervised",
        "ml.information",
        "ml.live",
        "ml.experiment",
        "ml.weights",
        "ml.preview",
        "ml.tiles",
        "ml.page",
        "ml.learned_views",
        "ml.distributed",
    ],
    "beartype.beartype",
)

from fastapi.testclient import TestClient  # noqa: E402

from app.embedded import Servers, servers  # noqa: E402
from app.persistence.database import engine  # noqa: E402
from app.persistence.models import Base  # noqa: E402
from app.settings import settings  # noqa: E402

HERE: dict[str, Any] = {"base_url": "http://127.0.0.1:8000", "client": ("127.0.0.1", 50000)}  # a request of this machine


STARTS_PROCESSES = {f"tests/app/test_{name}.py" for name in ("browser", "cli", "client", "embedded", "up", "upload_commands")}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Processes that share the tests take whole modules; one of them has all that starts workers, or counts processes.

    Not by `xdist_group`, whose marks pytest-xdist 3.8 loses under pytest 9.2 (its issue 1386).
    """
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415

    class ByModuleOrService(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            alone = module.startswith(("tests/workers/", "tests/faults/", "tests/test_")) or module in STARTS_PROCESSES
            return "services" if alone else module

    return ByModuleOrService(config, log)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A real Postgres, migrated, and a real Redis; this process's settings name them."""
    folder = tmp_path_factory.mktemp("data")
    with servers(folder) as running, pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATABASE_URL", running.database_url)
        environment.setenv("REDIS_URL", running.redis_url)
        environment.setenv("SWEETSPOT_DATA_DIR", str(folder))
        environment.setenv("SWEETSPOT_DATASETS", os.environ.get("SWEETSPOT_DATASETS", str(folder / "datasets")))
        settings.cache_clear()
        from alembic import command  # noqa: PLC0415

        from migrations.__main__ import config  # noqa: PLC0415

        command.upgrade(config(), "head")
        yield running
        engine().dispose()
    settings.cache_clear()


@pytest.fixture
def database(embedded: Servers) -> Servers:
    """The database with nothing in it."""
    with engine().begin() as connection:  # not TRUNCATE, which makes new files each time, and Postgres tidies them up at its end
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
    return embedded


@pytest.fixture
def api(database: Servers) -> Iterator[TestClient]:
    """The API on an empty database, with nobody to do the work."""
    from app.main import create_app  # noqa: PLC0415

    with TestClient(create_app(), **HERE, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def datasets_folder() -> Path:
    """Where real datasets lie; skips where there are none."""
    folder = os.environ.get("SWEETSPOT_DATASETS")
    if not folder:
        pytest.skip("SWEETSPOT_DATASETS does not say where real datasets lie")
    return Path(folder)
