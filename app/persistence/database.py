"""The connection to Postgres that the API and the workers share."""

from functools import cache

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

from app.settings import settings


@cache
def engine() -> Engine:
    """This process's connection pool: connections are tried before use, and no statement or lock waits for ever."""
    return create_engine(
        settings().require_database_url(),
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
    return sessionmaker(engine(), expire_on_commit=False)


def open_session() -> Session:
    """A session to use in a `with`; whoever opened it commits."""
    return _sessions()()
