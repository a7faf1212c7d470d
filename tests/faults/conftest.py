"""One service for all faults; each finds it with nothing in it."""

from collections.abc import Iterator

import pytest

from tests.faults.service import Service, service


@pytest.fixture(scope="package")
def hurt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service, started once."""
    with service(tmp_path_factory.mktemp("faults") / "data") as made:
        yield made


@pytest.fixture(name="service")
def _service(hurt: Service) -> Iterator[Service]:
    """The service with nothing in it."""
    hurt.reset()
    yield hurt
    hurt.kill_workers()
