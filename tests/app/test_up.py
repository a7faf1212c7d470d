"""The whole service, started, hurt and ended."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import runtime
from app.children import Child, Printer, Watch, descendants, marked
from app.client import Sweetspot
from app.embedded import free_port
from app.up import UpError, cores, gpus, usable_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Up:
    """`sweetspot up` on a folder, in a process of its own, until it is ready."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.output = folder.parent / "output"
        kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL", "SWEETSPOT_URL")}
        command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--workers", "1", "--data-dir", str(folder)]
        # What tests under nohup, or in a shell's background, ignore, their child would ignore too, as it should
        before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=kept, start_new_session=True)
        for number, handler in before.items():
            signal.signal(number, handler)
        assert until(lambda: runtime.read(folder) is not None or self.process.poll() is not None), self.output.read_text()
        running = runtime.read(folder)
        assert running, self.output.read_text()
        self.running = running

    def child(self, *words: str) -> int:
        """The process id of the child whose command line has these words."""
        return next(pid for pid in descendants(self.process.pid) if all(word in command_of(pid) for word in words))

    def everything(self) -> list[int]:
        return descendants(self.process.pid)


def until(fact: Callable[[], bool]) -> bool:
    """Whether it becomes true; once is enough: a process has no command line for the instant in which it becomes another."""
    deadline = time.monotonic() + 120
    while not (seen := fact()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    return command_of(pid) != ""  # a zombie has none


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    service = Up(tmp_path_factory.mktemp("up") / "data")
    yield service
    service.process.terminate()
    service.process.wait(60)


def cli_up(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "app.cli", "up", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_is_ready_and_says_where(up: Up) -> None:
    assert answers(up.running.api_url)
    note = up.folder / "runtime.json"
    assert json.loads(note.read_text()).keys() == {"api_url", "database_url", "redis_url", "pid"}
    assert note.stat().st_mode & 0o777 == 0o600
    assert up.running.pid == up.process.pid
    output = up.output.read_text()
    assert f"Sweetspot is up at {up.running.api_url}" in output
    assert "api        │ " in output
    assert "\x1b[" not in output, "colours are for terminals"


def test_it_is_backed_up_while_it_runs_and_tidied(up: Up, tmp_path: Path) -> None:
    def kept(*arguments: str | Path) -> str:
        command = [sys.executable, "-m", "app.cli", *map(str, arguments), "--data-dir", str(up.folder)]
        environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    spec = {"dataset": {"name": "digits"}, "views": {"kind": "noise", "sigma": 0.7}}
    made = httpx.post(f"{up.running.api_url}/v1/experiments", json=spec, trust_env=False).json()
    assert "tables of version" in kept("backup", tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar") as held:
        rows = held.extractfile("database/experiments")
        assert rows is not None and made["id"].encode() in rows.read()
    assert kept("gc") == ""
    assert answers(up.running.api_url)


def test_a_second_one_on_the_folder_is_refused(up: Up) -> None:
    second = cli_up("--port", "0", "--data-dir", up.folder)
    assert second.returncode == 1
    assert f"already runs on {up.folder} at {up.running.api_url} (process {up.process.pid})" in second.stderr
    assert answers(up.running.api_url)


def test_a_taken_port_is_refused_before_anything_starts(up: Up, tmp_path: Path) -> None:
    port = up.running.api_url.rpartition(":")[2]
    second = cli_up("--port", port, "--data-dir", tmp_path / "other")
    assert second.returncode == 1
    assert f"port {port} is taken" in second.stderr
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["up.lock"]


@pytest.mark.parametrize(
    "part", [("uvicorn",), ("postgres", "-D"), ("redis-server",), ("workers", "--name"), ("workers.reconciler",)]
)
def test_a_part_that_is_killed_comes_back(up: Up, part: tuple[str, ...]) -> None:
    victim = up.child(*part)
    below = descendants(victim)
    os.kill(victim, signal.SIGKILL)
    assert until(lambda: not is_alive(victim))

    def is_back() -> bool:
        return any(pid not in (victim, *below) and all(word in command_of(pid) for word in part) for pid in up.everything())

    assert until(is_back)
    assert until(lambda: answers(up.running.api_url))
    assert until(lambda: not any(is_alive(pid) for pid in below)), "what it had started is gone"
    assert up.process.poll() is None


def test_everything_ends_in_order_and_is_there_again(up: Up) -> None:
    with Sweetspot(up.running.api_url) as client:
        sweep = client.run_preset("digits-noise", title="kept")
        assert until(lambda: client.get(sweep["id"])["counts"]["running"] > 0)
    everything = up.everything()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(120) == 0, up.output.read_text()
    assert not any(is_alive(pid) for pid in everything)
    assert marked(f"SWEETSPOT_DATA_DIR={up.folder}") == []
    assert not (up.folder / "runtime.json").exists()
    assert not (up.folder / "postgres" / "postmaster.pid").exists()

    service = Up(up.folder)
    with Sweetspot(service.running.api_url) as client:
        found = client.get(sweep["id"])
        assert (found["name"], found["counts"]["total"]) == ("kept", 24)
    everything = service.everything()
    service.process.kill()
    service.process.wait()
    assert until(lambda: not any(is_alive(pid) for pid in everything)), "one that is killed takes all along"
    assert runtime.read(up.folder) is None

    service = Up(up.folder)
    with Sweetspot(service.running.api_url) as client:
        assert client.get(sweep["id"])["counts"]["total"] == 24
    service.process.send_signal(signal.SIGHUP)
    assert service.process.wait(120) == 0


def test_a_taken_port_is_told_and_0_is_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UpError, match="is taken"):
            usable_port(taken.getsockname()[1])
    assert usable_port(0) > 0
    assert usable_port(port := free_port()) == port


@pytest.mark.parametrize(
    ("visible", "names"), [("", []), ("-1", []), ("0", ["0"]), ("1, 3", ["1", "3"]), ("GPU-a,MIG-b", ["GPU-a", "MIG-b"])]
)
def test_gpus_are_those_that_cuda_may_see(monkeypatch: pytest.MonkeyPatch, visible: str, names: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == names


def test_cores_are_those_of_our_affinity_at_most() -> None:
    assert 1 <= cores() <= len(os.sched_getaffinity(0))


def test_lines_are_printed_whole_behind_the_name_of_who_says_them() -> None:
    stream = io.StringIO()
    script = "import sys; print('one'); print('half\\rtwo'); sys.stderr.write('three')"
    child = Child("talker", [sys.executable, "-u", "-c", script], dict(os.environ), Printer(stream))
    child.start()
    assert until(lambda: child.poll() is not None and "three" in stream.getvalue())
    assert stream.getvalue() == "talker     │ one\ntalker     │ two\ntalker     │ three\n"


def test_five_deaths_in_a_minute_are_too_many() -> None:
    said: list[str] = []
    child = Child("mortal", [sys.executable, "-S", "-c", "raise SystemExit(3)"], dict(os.environ), Printer(io.StringIO()))
    child.start()
    watch = Watch(child, said.append, first_delay=0.05)
    assert until(lambda: not watch.look())
    assert len(said) == 4
    assert "exit status 3" in said[0]


def test_what_it_left_of_its_group_dies_with_a_child() -> None:
    stream = io.StringIO()
    script = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    child = Child("parent", [sys.executable, "-u", "-c", script], dict(os.environ), Printer(stream))
    child.start()
    assert until(lambda: child.poll() is not None and stream.getvalue().endswith("\n"))
    orphan = int(stream.getvalue().split()[-1])
    assert until(lambda: not is_alive(orphan))


def test_a_lock_is_free_again_when_its_holder_is_gone(tmp_path: Path) -> None:
    path: Any = runtime.lock_path(tmp_path)
    with runtime.lock(path), pytest.raises(runtime.LockedError, match=f"process {os.getpid()}"), runtime.lock(path):
        pass
    with runtime.lock(path):
        pass
