from alembic import command
from sqlalchemy import inspect

from app.embedded import Servers
from app.persistence.database import engine
from app.persistence.models import Base
from migrations.__main__ import config


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
