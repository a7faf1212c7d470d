from pathlib import Path

from alembic import command
from sqlalchemy import inspect, text

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


def test_what_was_there_before_there_were_keys_is_the_local_owners(database: Servers) -> None:
    tables = ("experiments", "sweeps", "previews", "datasets", "mi_estimates", "idempotency_keys")
    before = {
        "experiments (id, name, tags, priority, spec, identity, progress)": "'exp_1', 'mine', '{}', 0, '{}', '', '{}'",
        "sweeps (id, name, spec)": "'swp_1', 'mine', '{}'",
        "previews (id, spec)": "'prv_1', '{}'",
        "datasets (id, name, sha256, size, progress)": "'ds_1', 'mine', '', 1, '{}'",
        "mi_estimates (id, name, spec, sha256, size, progress)": "'mie_1', 'mine', '{}', '', 1, '{}'",
        "idempotency_keys (key, fingerprint, status, headers, body)": "'k', '', 202, '{}', ''",
    }
    command.downgrade(config(), "0004")
    try:
        with engine().begin() as connection:
            for columns, values in before.items():
                connection.execute(text(f"INSERT INTO {columns} VALUES ({values})"))
    finally:
        command.upgrade(config(), "head")
    with engine().begin() as connection:
        for table in tables:
            assert connection.execute(text(f"SELECT owner FROM {table}")).all() == [("local",)], table
        connection.execute(
            text("INSERT INTO idempotency_keys SELECT 'k', '', 202, '{}', '', now(), 'anna'")
        )  # all have their own
    command.downgrade(config(), "0004")
    try:
        with engine().begin() as connection:
            assert connection.execute(text("SELECT key FROM idempotency_keys")).all() == [("k",)]
    finally:
        command.upgrade(config(), "head")
