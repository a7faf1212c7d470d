"""Settings, read from the environment once a process."""

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

LARGEST_UPLOAD = 20 * 2**30  # bytes
WORKER_MEMORY = 64 * 2**30  # bytes


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
class Retention:
    """For how many days what nobody works with is kept; 0 is for ever. `checkpoints` are those of cancelled experiments."""

    previews: float = 1
    idempotency_keys: float = 7
    checkpoints: float = 7
    metrics: float = 0
    experiments: float = 0

    def __post_init__(self) -> None:
        if not all(days >= 0 for days in vars(self).values()):
            raise SettingsError(f"days to keep things must be 0, which is for ever, or more, not {self}")


@dataclass(frozen=True)
class Settings:
    """Where things are. `database_url` and `redis_url` are None where the embedded servers are meant; uploads are in bytes.

    `auth` is whether requests need a key: `on`, `off`, or `auto`, in which those that are truly of this machine need none.
    `trade` is the module of what a runner does; `runner_memory`, in bytes, what it may hold, None for most of the machine's.
    """

    database_url: str | None
    redis_url: str | None
    data_dir: Path
    datasets_dir: Path
    artifacts_dir: Path
    port: int
    threads: int
    largest_upload: int
    auth: str
    trade: str
    runner_memory: int | None
    worker_memory: int
    timers: Timers = field(default_factory=Timers)
    retention: Retention = field(default_factory=Retention)
    log_format: str = "auto"
    log_level: str = "info"

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
        auth=_one_of("SWEETSPOT_AUTH", ("auto", "on", "off")),
        trade=os.environ.get("SWEETSPOT_TRADE", "workers.training"),
        runner_memory=_number("SWEETSPOT_RUNNER_MEMORY", None, int),
        worker_memory=_number("SWEETSPOT_WORKER_MEMORY", WORKER_MEMORY, int),
        timers=Timers(
            **{name: _number(f"SWEETSPOT_{name.upper()}_SECONDS", default, float) for name, default in vars(Timers()).items()}
        ),
        retention=Retention(
            **{name: _number(f"SWEETSPOT_KEEP_{name.upper()}_DAYS", days, float) for name, days in vars(Retention()).items()}
        ),
        log_format=os.environ.get("SWEETSPOT_LOG_FORMAT", "auto").lower(),
        log_level=os.environ.get("SWEETSPOT_LOG_LEVEL", "info").lower(),
    )


def sqlalchemy_url(url: str) -> str:
    """`postgresql://…` (or `postgres://…`) as SQLAlchemy names the psycopg 3 driver."""
    scheme, _, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if scheme in ("postgres", "postgresql") else url


def _required(name: str, value: str | None) -> str:
    if value is None:
        raise SettingsError(f"{name} is not set; set it, or let `sweetspot up` start embedded servers")
    return value


def _one_of(name: str, choices: tuple[str, ...]) -> str:
    """The first where the environment names none."""
    found = os.environ.get(name) or choices[0]
    if found not in choices:
        raise SettingsError(f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}, not {found!r}")
    return found


def _number(name: str, default: Any, kind: type[Any]) -> Any:
    text = os.environ.get(name)
    try:
        return default if text is None else kind(text)
    except ValueError:
        raise SettingsError(f"{name} must be a number, not {text!r}") from None
