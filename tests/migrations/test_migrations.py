from pathlib import Path

from alembic import command
from sqlalchemy import inspect

from app.embedded import Servers
from app.persistence import datasets, mi_estimates
from app.persistence.database import engine, open_session
from app.persistence.models import Base
from migrations.__main__ import config
from ml.spec import MiEstimate


def test_the_migrations_make_the_tables_of_the_models(database: Servers) -> None:
    command.check(config())


def test_they_run_down_and_up_again(database: Servers) -> None:
    tables = {table.name for table in Base.metadata.sorted_tables}
    command.downgrade(config(), "base")
    try:
        assert not tables & set(inspect(engine()).get_table_names())
    finally:
        command.upgrade(config(), "head")
    assert tables <= set(inspect(engine()).get_table_names())


def test_estimates_come_and_go_and_the_rest_stays(database: Servers, tmp_path: Path) -> None:
    def received() -> Path:
        path = tmp_path / "received"
        path.write_bytes(b"PK")
        return path

    with open_session() as session:
        upload = datasets.create(session, "mine", None, received(), "0" * 64, 2)
        session.commit()
    command.downgrade(config(), "0002")
    try:
        assert "mi_estimates" not in inspect(engine()).get_table_names()
    finally:
        command.upgrade(config(), "head")
    with open_session() as session:
        assert datasets.get(session, upload.id).name == "mine"
        estimate = mi_estimates.create(session, "mine", MiEstimate(), received(), "0" * 64, 2)
        session.commit()
        assert mi_estimates.get(session, estimate.id).state == "queued"
