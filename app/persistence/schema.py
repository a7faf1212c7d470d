"""Which tables the database has, as its migrations number them."""

from functools import cache

from alembic.script import ScriptDirectory
from sqlalchemy import select, table, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from migrations.__main__ import config

VERSIONS = "sweetspot_migrations"


@cache
def newest() -> str:
    """The version that this code works with."""
    head = ScriptDirectory.from_config(config()).get_current_head()
    assert head is not None, "there is a migration"
    return head


def present(session: Session) -> str | None:
    """The version that the database is at; None where it was never migrated."""
    try:
        return session.scalar(select(text("version_num")).select_from(table(VERSIONS)))
    except ProgrammingError:  # there is no such table
        session.rollback()
        return None


def fault(session: Session) -> str | None:
    """Why this code cannot work with the database's tables; None where it can."""
    found = present(session)
    if found == newest():
        return None
    if found is None:
        return f"not migrated: `sweetspot migrate` makes the tables of version {newest()}"
    return f"its tables are of version {found}, and this code needs {newest()}: see `sweetspot migrate`"
