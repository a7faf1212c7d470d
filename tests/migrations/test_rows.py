"""Every migration, one after another, with rows in every table of each version."""

from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError

from app.embedded import Servers
from app.persistence.database import engine, open_session
from app.persistence.models import Base, Experiment
from migrations.__main__ import config

STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")
EXPERIMENT = """
    INSERT INTO experiments (id, name, tags, priority, spec, identity, progress, state, attempt, lease_owner, lease_expires_at,
        started_at, finished_at, last_event)
    SELECT 'exp_' || state, 'of ' || state, ARRAY['old'], 3, '{"seed": 7}', 'same', '{"step": 4}', state, 2,
        CASE WHEN state IN ('running', 'cancelling') THEN 'w1@host/17' END,
        CASE WHEN state IN ('running', 'cancelling') THEN clock_timestamp() END, clock_timestamp(),
        CASE WHEN state IN ('succeeded', 'failed', 'cancelled') THEN clock_timestamp() END, 1
    FROM unnest(ARRAY['queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled']) AS state"""
OTHER = """
    INSERT INTO {table} (id, {columns}, state, lease_owner, lease_expires_at, finished_at)
    SELECT '{prefix}_' || state, {values}, state, CASE state WHEN 'running' THEN 'w1@host/17' END,
        CASE state WHEN 'running' THEN clock_timestamp() END, CASE state WHEN 'succeeded' THEN clock_timestamp() END
    FROM unnest(ARRAY['queued', 'running', 'succeeded']) AS state"""
ROWS = {  # of each version, what only it could first hold
    "0001": [
        EXPERIMENT,
        "INSERT INTO events (experiment_id, seq, attempt, type, data) VALUES ('exp_succeeded', 1, 2, 'queued', '{}')",
        "INSERT INTO metrics (experiment_id, attempt, name, step, value) VALUES ('exp_succeeded', 2, 'loss', 10, 0.5)",
        """INSERT INTO artifacts (experiment_id, attempt, name, media_type, size, sha256)
           VALUES ('exp_succeeded', 2, 'preview.png', 'image/png', 3, 'abc')""",
        "INSERT INTO sweeps (id, name, spec) VALUES ('swp_old', 'old', '{\"base\": {}, \"axis\": {}}')",
        """INSERT INTO sweep_members (sweep_id, axis_index, seed, experiment_id, reused)
           VALUES ('swp_old', 0, 7, 'exp_succeeded', false)""",
        OTHER.format(table="previews", prefix="prv", columns="spec, png", values="'{}', '\\x89'::bytea"),
        "INSERT INTO idempotency_keys (key, fingerprint, status, headers, body) VALUES ('k', 'f', 202, '{}', '{}')",
        "INSERT INTO workers (name, hardware) VALUES ('w1@host', '{}')",
    ],
    "0002": [
        OTHER.format(table="datasets", prefix="ds", columns="name, sha256, size, progress", values="'mine', 'abc', 3, '{}'"),
        """INSERT INTO experiments (id, name, tags, priority, spec, identity, progress, waits_for)
           VALUES ('exp_waits', '', '{}', 0, '{}', 'w', '{}', 'ds_queued')""",
    ],
    "0003": [
        OTHER.format(
            table="mi_estimates", prefix="mie", columns="name, spec, sha256, size, progress", values="'m', '{}', 'abc', 3, '{}'"
        ),
    ],
    "0004": ["INSERT INTO sweeps (id, name, spec, search) VALUES ('swp_search', '', '{}', '{\"ended\": null, \"places\": []}')"],
    "0005": [
        "INSERT INTO api_keys (id, name, owner, hash, scopes) VALUES ('key_1', 'laptop', 'ada', 'abc', ARRAY['read'])",
        "INSERT INTO sign_ins (hash, key_id, expires_at) VALUES ('def', 'key_1', clock_timestamp())",
        "INSERT INTO checkpoints (owner, id, name, format, size) VALUES ('ada', 'ckp_abc', 'w', 'safetensors', 3)",
        "INSERT INTO previews (id, spec, owner, key_id) VALUES ('prv_ada', '{}', 'ada', 'key_1')",
        """INSERT INTO idempotency_keys (owner, key, fingerprint, status, headers, body)
           VALUES ('ada', 'k', 'g', 202, '{}', '{}')""",
    ],
    "0006": ["INSERT INTO tallies (worker, kind, outcome, code, count) VALUES ('w1', 'experiment', 'failed', 'oom', 3)"],
}
REFUSED = {  # by the constraint that refuses it, in every later version too
    "ck_experiments_lease": "UPDATE experiments SET lease_owner = NULL WHERE id = 'exp_running'",
    "ck_experiments_finished": "UPDATE experiments SET finished_at = NULL WHERE id = 'exp_failed'",
    "ck_experiments_state": "UPDATE experiments SET state = 'asleep' WHERE id = 'exp_queued'",
    "pk_events": "INSERT INTO events SELECT * FROM events",
    "pk_artifacts": "INSERT INTO artifacts SELECT * FROM artifacts",
    "fk_sweep_members_experiment_id": "DELETE FROM experiments WHERE id = 'exp_succeeded'",
    "fk_metrics_experiment_id": "INSERT INTO metrics VALUES ('exp_nowhere', 1, 'loss', 1, 1)",
    "ck_previews_finished": "UPDATE previews SET finished_at = NULL WHERE id = 'prv_succeeded'",
}


def contents() -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, by column."""
    with engine().connect() as link:
        names = set(inspect(link).get_table_names()) - {"sweetspot_migrations"}
        return {
            name: [dict(row) for row in link.execute(text(f"SELECT * FROM {name} ORDER BY 1, 2")).mappings()] for name in names
        }


def survives(before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]) -> None:
    """Every row of `before` is there, with what its columns held, as far as both know them."""
    for table, rows in before.items():
        if table in after:
            assert len(after[table]) == len(rows), table
            known = rows[0].keys() & after[table][0].keys() if rows else ()
            for row in rows:
                assert {name: row[name] for name in known} in [{name: one[name] for name in known} for one in after[table]]


def run(statement: str) -> None:
    with engine().begin() as link:
        link.exec_driver_sql(statement)


def test_the_versions_know_each_of_their_tables(database: Servers) -> None:
    """A migration that comes later needs rows here, too."""
    revisions = [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()]
    assert sorted(revisions) == list(ROWS)
    words = " ".join(statement for statements in ROWS.values() for statement in statements)
    assert all(f"INSERT INTO {table.name} " in words for table in Base.metadata.sorted_tables)


def test_rows_of_every_version_survive_to_the_newest_and_back(database: Servers) -> None:
    command.downgrade(config(), "base")
    try:
        before: dict[str, list[dict[str, Any]]] = {}
        stages = {}
        for version, statements in ROWS.items():
            command.upgrade(config(), version)
            survives(before, contents())
            for statement in statements:
                run(statement)
            before = stages[version] = contents()
            for constraint, statement in REFUSED.items():
                with pytest.raises(IntegrityError, match=constraint):
                    run(statement)
        command.check(config())
        with open_session() as session:
            assert {row.state for row in session.scalars(select(Experiment))} == set(STATES)
            assert {row.owner for row in session.scalars(select(Experiment))} == {"local"}
        down = list(ROWS)[::-1]
        for older, newer in zip(down[1:], down, strict=False):
            command.downgrade(config(), older)
            found = contents()
            assert found.keys() == stages[older].keys(), newer
            survives({table: rows for table, rows in found.items() if table != "idempotency_keys"}, stages["0006"])
    finally:
        command.downgrade(config(), "base")
        command.upgrade(config(), "head")


@pytest.mark.parametrize("version", list(ROWS))
def test_an_installation_of_any_version_gets_to_the_newest_at_once(database: Servers, version: str) -> None:
    command.downgrade(config(), "base")
    try:
        for older, statements in ROWS.items():
            if older > version:
                break
            command.upgrade(config(), older)
            for statement in statements:
                run(statement)
        before = contents()
        command.upgrade(config(), "head")
        survives(before, contents())
        command.check(config())
    finally:
        command.downgrade(config(), "base")
        command.upgrade(config(), "head")
