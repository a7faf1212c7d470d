"""What a service promises of every history, checked against all that its database saw.

`AUDIT` records each state that an experiment's row was ever in, by a trigger and on the database's own clock; runners note each
step they take. `violations` reads both, and whatever else is left, and says in words what should not have happened.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text

from app.persistence import files
from app.persistence.models import LEASED, TERMINAL
from app.settings import settings
from tests.faults import tiny

AUDIT = """
CREATE TABLE IF NOT EXISTS audit (
    n bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), id text, state text, attempt int, owner text,
    expires timestamptz, failures int, results jsonb, gone boolean NOT NULL DEFAULT false);
CREATE OR REPLACE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO audit (id, state, attempt, gone) VALUES (OLD.id, OLD.state, OLD.attempt, true);
    ELSE
        INSERT INTO audit (id, state, attempt, owner, expires, failures, results)
        VALUES (NEW.id, NEW.state, NEW.attempt, NEW.lease_owner, NEW.lease_expires_at, NEW.failures, NEW.results);
    END IF;
    RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON experiments FOR EACH ROW EXECUTE FUNCTION audited();
"""
ALLOWED = {
    (None, "queued"),
    ("queued", "running"),
    ("queued", "cancelled"),
    ("running", "queued"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelling"),
    ("cancelling", "cancelled"),
}


@dataclass(frozen=True)
class Change:
    """A state that a row was in, from `at` on."""

    n: int
    at: datetime
    id: str
    state: str
    attempt: int
    owner: str | None
    expires: datetime | None
    failures: int | None
    results: dict[str, Any] | None
    gone: bool


@dataclass(frozen=True)
class Step:
    """A step that a runner took, at `when` nanoseconds of the machine's monotonic clock."""

    id: str
    attempt: int
    step: int
    pid: int
    when: int


def record(engine: Engine) -> None:
    """Begin to keep the history, with nothing in it."""
    with engine.begin() as connection:
        connection.execute(text(AUDIT))
        connection.execute(text("DELETE FROM audit"))
    journal().unlink(missing_ok=True)


def journal() -> Path:
    """Where runners note their steps."""
    return settings().data_dir / "journal"


def violations(connection: Connection, accepted: Collection[str]) -> list[str]:
    """All that is wrong with the history of the experiments that were `accepted`, once everything has come to rest."""
    changes = _changes(connection)
    rows = {row.id: row for row in connection.execute(text("SELECT * FROM experiments"))}
    return [
        *_unfinished(accepted, rows, changes),
        *(words for history in changes.values() for words in (*_transitions(history), *_leases(history))),
        *_events(connection, rows),
        *_visible(connection, rows),
        *_numbers(rows),
        *_overlaps(steps()),
        *_leftovers(rows),
    ]


def _changes(connection: Connection) -> Mapping[str, list[Change]]:
    found: dict[str, list[Change]] = defaultdict(list)
    for row in connection.execute(
        text("SELECT n, at, id, state, attempt, owner, expires, failures, results, gone FROM audit ORDER BY n")
    ):
        found[row.id].append(Change(*row))
    return found


def steps() -> list[Step]:
    """All steps that runners noted."""
    if not journal().exists():
        return []
    lines = (line.split() for line in journal().read_text().splitlines())
    return [Step(name, *map(int, rest)) for name, *rest in lines]


def _unfinished(accepted: Iterable[str], rows: Mapping[str, Any], changes: Mapping[str, list[Change]]) -> Iterable[str]:
    """Every accepted experiment reaches a terminal state."""
    for name in accepted:
        gone = name in changes and changes[name][-1].gone
        if name not in rows and not gone:
            yield f"{name} was accepted and is not there"
        elif name in rows and rows[name].state not in TERMINAL:
            yield f"{name} was accepted and is {rows[name].state}"


def _transitions(history: list[Change]) -> Iterable[str]:
    """Terminal states never change, and attempts only rise, one at a time and with a claim."""
    before: Change | None = None
    for change in history:
        old = before.state if before else None
        if before is not None and before.gone:
            yield f"{change.id} came back after it was deleted"
        elif change.gone:
            if change.state not in TERMINAL:
                yield f"{change.id} was deleted while it was {change.state}"
        elif change.state != old and (old, change.state) not in ALLOWED:
            yield f"{change.id} went from {old} to {change.state}"
        elif before is not None:
            rise = change.attempt - before.attempt
            if rise != ((old, change.state) == ("queued", "running")):
                yield f"{change.id} went from attempt {before.attempt} to {change.attempt} as {change.state}"
            if old in TERMINAL and change.results != before.results:
                yield f"{change.id} has {old} and got other results"
        before = change


def _leases(history: list[Change]) -> Iterable[str]:
    """No two valid leases at one database time: none is granted, renewed or changed hands while another's is valid."""
    for before, after in pairwise(history):
        held = before.owner is not None and before.expires is not None and before.expires > after.at
        if held and after.owner is not None and (after.owner, after.attempt) != (before.owner, before.attempt):
            yield f"{after.id} was given to {after.owner} while {before.owner} held it"
        if after.owner is not None and after.state not in LEASED:
            yield f"{after.id} is {after.state} and held by {after.owner}"


def _events(connection: Connection, rows: Mapping[str, Any]) -> Iterable[str]:
    """The history that clients read has no gaps, and says what happened."""
    told: dict[str, list[Any]] = defaultdict(list)
    for event in connection.execute(text("SELECT experiment_id, seq, attempt, type FROM events ORDER BY experiment_id, seq")):
        told[event.experiment_id].append(event)
    for name, row in rows.items():
        kinds = [event.type for event in told[name]]
        if [event.seq for event in told[name]] != list(range(1, row.last_event + 1)):
            yield f"{name}'s events are numbered {[event.seq for event in told[name]]}, up to {row.last_event}"
        if kinds[:1] != ["queued"]:
            yield f"{name}'s history begins with {kinds[:1]}"
        if row.state in TERMINAL and kinds[-1:] != [row.state]:
            yield f"{name} is {row.state} and its history ends with {kinds[-1:]}"
        if sum(kinds.count(state) for state in TERMINAL) > 1:
            yield f"{name} ended more than once: {kinds}"
        if kinds.count("running") != row.attempt:
            yield f"{name} has begun {kinds.count('running')} times in {row.attempt} attempts"
        stages = [event.attempt for event in told[name] if event.type == "stage"]
        if any(stages.count(attempt) > 2 for attempt in stages):
            yield f"{name} told of a stage twice: {stages}"


def _visible(connection: Connection, rows: Mapping[str, Any]) -> Iterable[str]:
    """At most one attempt's writes are visible, and they are whole."""
    for table in ("metrics", "artifacts"):
        for found in connection.execute(text(f"SELECT DISTINCT experiment_id AS id, attempt FROM {table}")):
            row = rows[found.id]
            if row.state == "succeeded" and found.attempt != row.attempt:
                yield f"{table} of {found.id}'s attempt {found.attempt} are left, and {row.attempt} has succeeded"
    artifacts = list(connection.execute(text("SELECT * FROM artifacts")))
    for artifact in artifacts:
        path = files.attempt_folder(artifact.experiment_id, artifact.attempt) / artifact.name
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != artifact.sha256:
            yield f"{artifact.experiment_id}'s {artifact.name} is not what its row says"
    shown = {artifact.experiment_id for artifact in artifacts}
    for name, row in rows.items():
        if (row.state == "succeeded") != (name in shown):
            yield f"{name} is {row.state} and {'has' if name in shown else 'lacks'} files"
        if (row.state == "succeeded") != (row.results is not None):
            yield f"{name} is {row.state} and {'has' if row.results else 'lacks'} results"


def _numbers(rows: Mapping[str, Any]) -> Iterable[str]:
    """Final numbers are those of an undisturbed run."""
    for name, row in rows.items():
        if row.state == "succeeded":
            expected = tiny.results(tiny.end(row.spec["seed"], row.spec["pretrain"]["steps"]))
            if row.results["mi"] != expected["mi"] or row.results["tasks"] != expected["tasks"]:
                yield f"{name} has other numbers than an undisturbed run"


def _overlaps(steps: Iterable[Step]) -> Iterable[str]:
    """Nothing goes on with an attempt once the next has begun, and no two processes work on one.

    One that was stopped and goes on may take the step that it was at, and notices then.
    """
    by_name: dict[str, list[Step]] = defaultdict(list)
    for step in sorted(steps, key=lambda step: step.when):
        by_name[step.id].append(step)
    for name, taken in by_name.items():
        newest, late = 0, defaultdict(list)
        for step in taken:
            newest = max(newest, step.attempt)
            if step.attempt < newest:
                late[step.attempt].append(step)
        for attempt, stragglers in late.items():
            if len(stragglers) > 1:
                yield f"{name}: attempt {attempt} took {len(stragglers)} steps after the next had begun"
        for attempt in {step.attempt for step in taken}:
            own = [step for step in taken if step.attempt == attempt]
            if len({step.pid for step in own}) > 1:
                yield f"{name}: several processes worked on attempt {attempt}"
            if any(after.step <= before.step for before, after in pairwise(own)):  # a full disk may keep notes from being taken
                yield f"{name}: attempt {attempt} took the steps {[step.step for step in own]}"


def _leftovers(rows: Mapping[str, Any]) -> Iterable[str]:
    """No leaked temp file, and no checkpoint of what has ended but where a retry may go on from it."""
    for path in settings().artifacts_dir.rglob("*"):
        if path.is_file() and (path.name.startswith(".") or path.parent.name == "incoming"):
            yield f"{path} is left over"
    for name, row in rows.items():
        if row.state in ("succeeded", "failed") and files.checkpoints_folder(name).exists():
            yield f"{name} has {row.state} and its checkpoints are left"
    for folder in settings().artifacts_dir.glob("exp_*"):
        if folder.name not in rows:
            yield f"{folder} belongs to nobody"
