"""The connection to Postgres that the API and the workers share."""

from functools import cache, lru_cache

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker, with_loader_criteria
from sqlalchemy.sql.base import ExecutableOption

from app.persistence import callers
from app.persistence.models import Owned
from app.settings import settings


@cache
def engine() -> Engine:
    """This process's connection pool: connections are tried before use, and no statement or lock waits for ever."""
    return create_engine(
        settings().require_database_url(),
        hide_parameters=True,  # an error's text goes into logs, and what clients sent does not belong there
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=30,
        pool_timeout=10,
        connect_args={
            "connect_timeout": 5,
            "tcp_user_timeout": 10_000,  # milliseconds: a server behind a dead network is given up
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "options": "-c statement_timeout=30s -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s -c timezone=UTC",
        },
    )


@cache
def _sessions() -> sessionmaker[Session]:
    return sessionmaker(engine(), class_=_Scoped, expire_on_commit=False)


def open_session() -> Session:
    """A session to use in a `with`; whoever opened it commits."""
    return _sessions()()


class _Scoped(Session):
    """In it rows of others are not there for a caller who is no admin, whatever is read, changed or deleted."""


@event.listens_for(_Scoped, "do_orm_execute")
def _keep_to_own(state: ORMExecuteState) -> None:
    caller = callers.asking()
    if caller is None or caller.sees_all or state.is_column_load or state.is_insert:
        return
    state.statement = state.statement.options(_own(caller.owner))


@lru_cache(1024)
def _own(owner: str) -> ExecutableOption:
    """Of every table that has owners, only this one's rows."""
    return with_loader_criteria(Owned, lambda model: model.owner == owner, include_aliases=True)
