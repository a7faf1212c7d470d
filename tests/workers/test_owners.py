"""Whether a lease's owner still lives, and what a runner may hold, is read off the machine."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import settings
from workers import memory, owners


def test_a_living_process_is_not_gone() -> None:
    assert not owners.is_gone(owners.own("w1@here"))


def test_a_process_that_has_ended_is_gone_even_before_it_is_buried() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "print()"], stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.read()
    owner = owners.own("w1@here").replace(str(os.getpid()), str(child.pid))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owners.is_gone(owner), "a zombie"
    child.wait()
    assert owners.is_gone(owner)


@pytest.mark.parametrize("owner", ["worker-1", "w1@here/1", "w1@here/99999999-ffffffffffff", "w1@here/x-"])
def test_of_other_machines_nothing_is_known(owner: str) -> None:
    assert not owners.is_gone(owner)


def test_what_is_eaten_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.eaten(os.getpid()) is None
    monkeypatch.setenv("SWEETSPOT_RUNNER_MEMORY", "1024")
    settings.cache_clear()
    try:
        assert "may hold 9.54e-07 GiB" in str(memory.eaten(os.getpid()))
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert memory.eaten(99_999_999) is None


def test_that_it_cannot_be_looked_for_does_not_mean_that_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with too many files open, or a /proc that hides other people's processes."""
    monkeypatch.setattr(Path, "read_text", lambda _: (_ for _ in ()).throw(OSError(errno.EMFILE, "too many open files")))
    assert not owners.is_gone(f"w1@here/99999999-{owners.machine()}")
