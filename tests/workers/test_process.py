"""What a supervisor does with a process that has ended, or is about to."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workers import checkpoints
from workers.process import RunnerProcess

LEAVES_A_CHILD = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"


class Stand(RunnerProcess):
    """A runner's place, taken by another program."""

    def __init__(self, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
        popen: Any = subprocess.Popen
        monkeypatch.setattr(subprocess, "Popen", lambda _, **rest: popen([sys.executable, "-S", "-c", script], **rest))
        super().__init__()
        monkeypatch.undo()


def said(runner: RunnerProcess) -> int:
    select.select([runner], [], [], 60)
    return int(os.read(runner.fileno(), 100))


@pytest.mark.parametrize("by_itself", [True, False])
def test_what_a_runner_left_of_its_group_ends_with_it(
    by_itself: bool, monkeypatch: pytest.MonkeyPatch, exists: Callable[[int], bool], eventually: Callable[..., Any]
) -> None:
    runner = Stand(LEAVES_A_CHILD, monkeypatch)
    child = said(runner)
    if by_itself:
        os.kill(runner.pid, signal.SIGKILL)
        eventually(lambda: not runner.alive)
    runner.kill()
    assert not runner.alive
    eventually(lambda: not exists(child))


def test_one_that_closed_its_line_is_not_waited_upon(monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]) -> None:
    """Its end could be read for ever, which would keep a core busy."""
    runner = Stand("import os, time; os.close(1); time.sleep(600)", monkeypatch)

    def silent() -> bool:
        runner.listen()
        return not runner.speaks

    eventually(silent)
    assert runner.alive
    runner.kill()


def test_a_checkpoint_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    checkpoints.store(tmp_path, 10, b"ten")
    checkpoints.store(tmp_path, 20, b"twenty")
    newest = max(tmp_path.glob("*.safetensors"))
    newest.unlink()
    newest.mkdir()  # reading it is an error, also for root
    assert checkpoints.newest(tmp_path) == (10, b"ten")


def test_two_checkpoints_are_kept_and_a_bad_one_is_passed_over(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        checkpoints.store(tmp_path, step, str(step).encode())
    assert [int(path.name[:12]) for path in sorted(tmp_path.iterdir())] == [20, 30]
    max(tmp_path.iterdir()).write_bytes(b"31")
    assert checkpoints.newest(tmp_path) == (20, b"20")
    min(tmp_path.iterdir()).write_bytes(b"")
    assert checkpoints.newest(tmp_path) is None
