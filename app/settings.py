"""Settings, read from the environment once a process."""

import logging
import os
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import structlog

LARGEST_UPLOAD = 20 * 2**30  # bytes


class SettingsError(RuntimeError):
    """The environment lacks something, or holds something that cannot be used."""


@dataclass(frozen=True)
class Timers:
    """The queue's timers in seconds; leases run on the database's clock, the rest on the local monotonic one.

    A worker that cannot renew its lease stops its runner after `self_fence`, and the runner is gone `kill_grace` later: both must
    have passed before the lease can be given to another.
    """

    heartbeat: float = 10
    self_fence: float = 30
    kill_grace: float = 10
    lease: float = 60
    reconcile: float = 15
    idle_look: float = 30
    cancel_grace: float = 2
    stall: float = 600
    checkpoint: float = 60

    def __post_init__(self) -> None:
        if not self.heartbeat < self.self_fence < self.self_fence + self.kill_grace < self.lease:
            raise SettingsError(f"timers must obey heartbeat < self_fence and self_fence + kill_grace < lease, not {self}")


@dataclass(frozen=True)
class Settings:
    """Where things are. `database_url` and `redis_url` are None where the embedded servers are meant; uploads are in bytes."""

    database_url: str | None
    redis_url: str | None
    data_dir: Path
    datasets_dir: Path
    artifacts_dir: Path
    port: int
    threads: int
    largest_upload: int
    timers: Timers = field(default_factory=Timers)

    @property
    def uploads_dir(self) -> Path:
        """Uploaded datasets; beside the artifacts, because the API and all workers share that folder."""
        return self.artifacts_dir / "uploads"

    @property
    def prepared_dir(self) -> Path:
        """What this machine made once out of datasets, and can make again."""
        return self.data_dir / "prepared"

    def require_database_url(self) -> str:
        """The database's URL in SQLAlchemy's spelling for psycopg 3. Raises SettingsError where it is not set."""
        return sqlalchemy_url(_required("DATABASE_URL", self.database_url))

    def require_redis_url(self) -> str:
        """The Redis URL. Raises SettingsError where it is not set."""
        return _required("REDIS_URL", self.redis_url)


@cache
def settings() -> Settings:
    """This process's settings; `settings.cache_clear()` reads the environment again."""
    data_dir = Path(os.environ.get("SWEETSPOT_DATA_DIR", ".sweetspot")).resolve()
    artifacts = os.environ.get("SWEETSPOT_ARTIFACTS", str(data_dir / "artifacts"))
    if "://" in artifacts:
        raise SettingsError(f"SWEETSPOT_ARTIFACTS must be a folder that the API and the workers share, not {artifacts!r}")
    return Settings(
        database_url=os.environ.get("DATABASE_URL") or None,
        redis_url=os.environ.get("REDIS_URL") or None,
        data_dir=data_dir,
        datasets_dir=Path(os.environ.get("SWEETSPOT_DATASETS", data_dir / "datasets")).resolve(),
        artifacts_dir=Path(artifacts).resolve(),
        port=_number("SWEETSPOT_PORT", 8000, int),
        threads=_number("SWEETSPOT_THREADS", os.cpu_count() or 1, int),
        largest_upload=_number("SWEETSPOT_LARGEST_UPLOAD", LARGEST_UPLOAD, int),
        timers=Timers(
            **{name: _number(f"SWEETSPOT_{name.upper()}_SECONDS", default, float) for name, default in vars(Timers()).items()}
        ),
    )


def configure_logs() -> None:
    """Readable log lines on standard error: coloured on a terminal, `key=value` elsewhere."""
    plain = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("%H:%M:%S", utc=False),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else plain,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


def sqlalchemy_url(url: str) -> str:
    """`postgresql://…` (or `postgres://…`) as SQLAlchemy names the psycopg 3 driver."""
    scheme, _, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if scheme in ("postgres", "postgresql") else url


def _required(name: str, value: str | None) -> str:
    if value is None:
        raise SettingsError(f"{name} is not set; set it, or let `sweetspot up` start embedded servers")
    return value


def _number(name: str, default: Any, kind: type[Any]) -> Any:
    text = os.environ.get(name)
    try:
        return default if text is None else kind(text)
    except ValueError:
        raise SettingsError(f"{name} must be a number, not {text!r}") from None
