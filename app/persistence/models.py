"""The tables, as typed models. Times are the database's, in UTC."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.persistence import callers

ACTIVE = ("queued", "running", "cancelling")
TERMINAL = ("succeeded", "failed", "cancelled")
LEASED = ("running", "cancelling")
IDLE = {"stage": None, "step": 0, "total": None, "rate": None, "eta_s": None}


class Base(DeclarativeBase):
    """Naming rules for constraints, so that migrations can name what they change."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text),
    }


class Owned:
    """What belongs to somebody: rows that are there for their owner, and for admins; `database` sees to that in every query."""

    owner: Mapped[str] = mapped_column(default=callers.owner, server_default=callers.LOCAL.owner)

    def __init__(self, **fields: Any):
        super().__init__(**{"owner": callers.owner(), **fields})  # of whoever makes it, not of whoever asks when it is flushed


class Submitted(Owned):
    """What was submitted by a key, and counts against its quotas."""

    key_id: Mapped[str | None] = mapped_column(default=callers.key_id)

    def __init__(self, **fields: Any):
        super().__init__(**{"key_id": callers.key_id(), **fields})


class Leased:
    """What a claimable row carries: `attempt` only ever rises, and with `lease_owner` it fences every write of a worker."""

    state: Mapped[str] = mapped_column(server_default="queued")
    attempt: Mapped[int] = mapped_column(Integer, server_default="0")
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]


def _leased_checks(states: tuple[str, ...]) -> tuple[CheckConstraint, ...]:
    listed = ", ".join(f"'{state}'" for state in states)
    return (
        CheckConstraint(f"state IN ({listed})", name="state"),
        CheckConstraint("(lease_owner IS NOT NULL) = (state IN ('running', 'cancelling'))", name="lease"),
        CheckConstraint("(finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))", name="finished"),
    )


class Experiment(Submitted, Leased, Base):
    """One pretraining on one recipe, from its spec to its results."""

    __tablename__ = "experiments"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    tags: Mapped[list[str]]
    priority: Mapped[int]
    queue: Mapped[str] = mapped_column(server_default="default")
    spec: Mapped[dict[str, Any]]
    identity: Mapped[str]
    progress: Mapped[dict[str, Any]]
    results: Mapped[dict[str, Any] | None]
    retry_of: Mapped[str | None]
    waits_for: Mapped[str | None]
    """The upload that must be decoded before the spec, which is still as it was asked for, can be resolved."""
    last_event: Mapped[int] = mapped_column(Integer, server_default="0")

    __table_args__ = (
        *_leased_checks(ACTIVE + TERMINAL),
        Index(
            "ix_experiments_claim",
            "queue",
            text("priority DESC"),
            "created_at",
            postgresql_where=text("state = 'queued' AND waits_for IS NULL"),
        ),
        Index("ix_experiments_waits_for", "waits_for", postgresql_where=text("state = 'queued'")),
        Index("ix_experiments_lease", "lease_expires_at", postgresql_where=text("lease_owner IS NOT NULL")),
        Index("ix_experiments_state_id", "state", "id"),
        Index("ix_experiments_created_at", "created_at"),
        Index("ix_experiments_tags", "tags", postgresql_using="gin"),
        Index("ix_experiments_identity", "identity", postgresql_where=text("state = 'succeeded'")),
        Index("ix_experiments_owner_id", "owner", "id"),
        Index("ix_experiments_key_id_state", "key_id", "state", postgresql_where=text("finished_at IS NULL")),
    )


class Event(Base):
    """Something that happened to an experiment; `seq` counts from 1 without gaps."""

    __tablename__ = "events"

    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True)
    attempt: Mapped[int]
    type: Mapped[str]
    data: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Metric(Base):
    """A number measured during an attempt."""

    __tablename__ = "metrics"

    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    value: Mapped[float | None] = mapped_column(Float)


class Artifact(Base):
    """A file that an attempt left in the artifacts folder."""

    __tablename__ = "artifacts"

    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    media_type: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]


class Sweep(Submitted, Base):
    """Experiments along one axis; its state is read off theirs, and, where values are searched for, off the search's."""

    __tablename__ = "sweeps"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    spec: Mapped[dict[str, Any]]
    search: Mapped[dict[str, Any] | None]
    """Of a search the `places` tried so far, {value, short} each, in the order of `axis_index`; the trainings `spent`; the `peak`
    as it is known, from how many scores (`told`); and why it `ended`, null while it goes on, with the `error` if it failed."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    __table_args__ = (
        Index("ix_sweeps_created_at", "created_at"),
        Index("ix_sweeps_owner_id", "owner", "id"),
        Index("ix_sweeps_key_id", "key_id"),
        Index("ix_sweeps_searching", "id", postgresql_where=text("search IS NOT NULL AND (search ->> 'ended') IS NULL")),
    )


class SweepMember(Base):
    """An experiment's place in a sweep. An experiment may stand in several; `reused` where it was finished before."""

    __tablename__ = "sweep_members"

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    axis_index: Mapped[int] = mapped_column(primary_key=True)
    seed: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id"))
    reused: Mapped[bool]

    __table_args__ = (Index("ix_sweep_members_experiment_id", "experiment_id"),)


class Preview(Submitted, Leased, Base):
    """A picture of view pairs, made by a worker."""

    __tablename__ = "previews"

    id: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[dict[str, Any]]
    waits_for: Mapped[str | None]
    """As an experiment's."""
    png: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)

    __table_args__ = (
        *_leased_checks(ACTIVE + TERMINAL),
        Index("ix_previews_claim", "created_at", postgresql_where=text("state = 'queued' AND waits_for IS NULL")),
        Index("ix_previews_waits_for", "waits_for", postgresql_where=text("state = 'queued'")),
        Index("ix_previews_owner_id", "owner", "id"),
        Index("ix_previews_key_id", "key_id", postgresql_where=text("finished_at IS NULL")),
        Index("ix_previews_lease", "lease_expires_at", postgresql_where=text("lease_owner IS NOT NULL")),
    )


class Dataset(Submitted, Leased, Base):
    """An upload. A worker decodes it: its `error` says why it was rejected, `facts` are what is known of it once it is ready."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    layout: Mapped[str | None]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    facts: Mapped[dict[str, Any] | None]
    same_as: Mapped[str | None]
    progress: Mapped[dict[str, Any]]

    __table_args__ = (
        *_leased_checks(ACTIVE + TERMINAL),
        Index("ix_datasets_claim", "created_at", postgresql_where=text("state = 'queued'")),
        Index("ix_datasets_lease", "lease_expires_at", postgresql_where=text("lease_owner IS NOT NULL")),
        Index("ix_datasets_sha256", "sha256"),
        Index("ix_datasets_owner_id", "owner", "id"),
        Index("ix_datasets_key_id", "key_id"),
    )

    @property
    def status(self) -> str:
        """Its state in the words that clients know."""
        return {"succeeded": "ready", "failed": "rejected"}.get(self.state, "processing")

    @property
    def spec(self) -> dict[str, Any]:
        """What a worker must know to decode it."""
        return {"name": self.name, "layout": self.layout, "sha256": self.sha256}


class MiEstimate(Submitted, Leased, Base):
    """The mutual information of two uploaded arrays: what was asked, and what a worker found."""

    __tablename__ = "mi_estimates"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    spec: Mapped[dict[str, Any]]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    results: Mapped[dict[str, Any] | None]
    same_as: Mapped[str | None]
    progress: Mapped[dict[str, Any]]

    __table_args__ = (
        *_leased_checks(ACTIVE + TERMINAL),
        Index("ix_mi_estimates_claim", "created_at", postgresql_where=text("state = 'queued'")),
        Index("ix_mi_estimates_lease", "lease_expires_at", postgresql_where=text("lease_owner IS NOT NULL")),
        Index("ix_mi_estimates_sha256", "sha256", postgresql_where=text("state = 'succeeded'")),
        Index("ix_mi_estimates_owner_id", "owner", "id"),
        Index("ix_mi_estimates_key_id", "key_id", postgresql_where=text("finished_at IS NULL")),
    )


class Checkpoint(Submitted, Base):
    """Weights to begin from: a file under its hash, which several owners may have sent, each for himself."""

    __tablename__ = "checkpoints"

    owner: Mapped[str] = mapped_column(default=callers.owner, server_default=callers.LOCAL.owner, primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    format: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    __table_args__ = (Index("ix_checkpoints_id", "id"), Index("ix_checkpoints_key_id", "key_id"))


class IdempotencyKey(Owned, Base):
    """The first answer to a POST, replayed to the next one with the same key. Written in the transaction of what it created."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(default=callers.owner, server_default=callers.LOCAL.owner, primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    status: Mapped[int]
    headers: Mapped[dict[str, Any]]
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Worker(Base):
    """A supervisor that lives, what it runs on, and when it was last heard of."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    hardware: Mapped[dict[str, Any]]
    seen_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Tally(Base):
    """How many attempts of a worker ended in one way, and when the last one did: each worker writes rows of its own."""

    __tablename__ = "tallies"

    worker: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    outcome: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(primary_key=True)
    """The error's; empty where there was none."""
    count: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class ApiKey(Base):
    """A key of the API, known by the hash of its secret. Its `scopes` are what it may do; a quota that is null is none."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    owner: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    max_queued: Mapped[int | None]
    max_running: Mapped[int | None]
    max_stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    per_minute: Mapped[int | None]


class SignIn(Base):
    """A browser that is signed in with a key, known by the hash of its cookie."""

    __tablename__ = "sign_ins"

    hash: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]

    __table_args__ = (Index("ix_sign_ins_key_id", "key_id"),)
