"""The history checker catches what it is there for: each violation is planted into a sound history."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy import Connection

from app.persistence import files
from tests.faults import history
from tests.faults.service import Service

SQL = {
    "an accepted experiment is lost": (
        "ALTER TABLE experiments DISABLE TRIGGER audited; DELETE FROM experiments WHERE id = '{id}'",
        "was accepted and is not there",
    ),
    "an accepted experiment never ends": (
        "UPDATE experiments SET state = 'queued', finished_at = NULL WHERE id = '{id}'",
        "was accepted and is queued",
    ),
    "a terminal state changes": (
        "UPDATE experiments SET state = 'failed' WHERE id = '{id}'",
        "went from succeeded to failed",
    ),
    "results change after the end": (
        "UPDATE experiments SET results = jsonb_set(results, '{{timing,x}}', '1') WHERE id = '{id}'",
        "got other results",
    ),
    "numbers differ": (
        "ALTER TABLE experiments DISABLE TRIGGER audited;"
        "UPDATE experiments SET results = jsonb_set(results, '{{mi,infonce,value}}', '9') WHERE id = '{id}'",
        "has other numbers than an undisturbed run",
    ),
    "an attempt rises without a claim": (
        "UPDATE experiments SET attempt = attempt + 1 WHERE id = '{id}'",
        "went from attempt 1 to 2 as succeeded",
    ),
    "an event is missing": ("DELETE FROM events WHERE experiment_id = '{id}' AND seq = 2", "events are numbered [1, 3"),
    "an event is told twice": (
        "UPDATE experiments SET last_event = last_event + 1 WHERE id = '{id}';"
        "INSERT INTO events SELECT experiment_id, seq + 1, attempt, type, data FROM events"
        " WHERE experiment_id = '{id}' AND type = 'succeeded'",
        "ended more than once",
    ),
    "metrics of another attempt show": (
        "INSERT INTO metrics VALUES ('{id}', 7, 'loss', 1, 0.5)",
        "metrics of {id}'s attempt 7 are left",
    ),
    "a file is not what it should be": (
        "UPDATE artifacts SET sha256 = 'f00' WHERE experiment_id = '{id}'",
        "place.txt is not what its row says",
    ),
    "a file is missing": ("DELETE FROM artifacts WHERE experiment_id = '{id}'", "is succeeded and lacks files"),
    "two hold it at once": (
        "INSERT INTO audit (id, state, attempt, owner, expires) VALUES"
        " ('{id}x', 'queued', 0, NULL, NULL), ('{id}x', 'running', 1, 'a', clock_timestamp() + interval '1 hour'),"
        " ('{id}x', 'running', 2, 'b', clock_timestamp() + interval '1 hour')",
        "was given to b while a held it",
    ),
    "it was deleted while it ran": (
        "INSERT INTO audit (id, state, attempt, gone) VALUES"
        " ('{id}x', 'queued', 0, false), ('{id}x', 'running', 1, false), ('{id}x', 'running', 1, true)",
        "was deleted while it was running",
    ),
}


@pytest.fixture(scope="module")
def sound(hurt: Service) -> str:
    """An experiment with nothing wrong."""
    hurt.reset()
    hurt.start_worker()
    name = hurt.submit(12, name="pace=0")
    hurt.finished(name)
    hurt.check()
    return name


@pytest.fixture
def connection(hurt: Service, sound: str) -> Iterator[Connection]:
    """Into the database with that experiment; what is done to it is undone."""
    with hurt.engine.connect() as connection:
        yield connection
        connection.rollback()


def found(connection: Connection, sound: str) -> list[str]:
    return history.violations(connection, [sound])


@pytest.mark.parametrize("violation", SQL)
def test_a_planted_violation_is_caught(connection: Connection, sound: str, violation: str) -> None:
    sql, words = SQL[violation]
    assert found(connection, sound) == []
    connection.exec_driver_sql(sql.format(id=sound))
    assert any(words.format(id=sound) in line for line in found(connection, sound)), found(connection, sound)


def step(name: str, attempt: int, number: int, pid: int, when: int) -> str:
    return f"{name} {attempt} {number} {pid} {when}\n"


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        ([(1, 1, 5, 1), (2, 1, 6, 2), (1, 2, 5, 3), (1, 3, 5, 4)], "attempt 1 took 2 steps after the next had begun"),
        ([(1, 1, 5, 1), (1, 2, 6, 2)], "several processes worked on attempt 1"),
        ([(1, 3, 5, 1), (1, 3, 5, 2)], "attempt 1 took the steps [3, 3]"),
    ],
)
def test_steps_that_nobody_should_have_taken_are_seen(
    connection: Connection, sound: str, taken: list[tuple[int, int, int, int]], words: str
) -> None:
    before = history.journal().read_text()
    try:
        history.journal().write_text("".join(step(sound, *each) for each in taken))
        assert any(words in line for line in found(connection, sound))
    finally:
        history.journal().write_text(before)


@pytest.mark.parametrize("words", ["is left over", "its checkpoints are left", "belongs to nobody"])
def test_what_is_left_over_is_seen(connection: Connection, sound: str, words: str) -> None:
    planted = {
        "is left over": files.attempt_folder(sound, 1) / ".place.txt.123",
        "its checkpoints are left": files.checkpoints_folder(sound) / "00.safetensors",
        "belongs to nobody": files.attempt_folder("exp_0", 1) / "place.txt",
    }[words]
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text("half")
    assert any(words in line for line in found(connection, sound))
    planted.unlink()
    for folder in (planted.parent, planted.parent.parent):
        with suppress(OSError):
            folder.rmdir()


def test_a_process_that_is_left_is_seen(service: Service) -> None:
    service.start_worker()
    service.supervisor()
    with pytest.raises(AssertionError, match="is left"):
        service.check_processes()
