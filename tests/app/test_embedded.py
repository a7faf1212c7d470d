"""The real servers, started and stopped, killed and started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis

from app import embedded
from app.children import descendants
from app.embedded import EmbeddedError, Postgres, Redis, free_port, servers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as link:
        cursor = link.execute(query)
        return cursor.fetchall() if cursor.description else []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(fact: Callable[[], bool]) -> bool:
    """Whether it becomes true; once is enough: a process has no command line for the instant in which it becomes another."""
    deadline = time.monotonic() + 30
    while not (seen := fact()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder for the tests that need no new one, since making one takes a while."""
    return tmp_path_factory.mktemp("data")


def test_both_answer_as_they_should_and_leave_no_process(folder: Path) -> None:
    before = set(descendants(os.getpid()))
    with servers(folder) as running:
        names = ("fsync", "TimeZone", "max_connections", "listen_addresses")
        settings = [ask(running.database_url, f"SHOW {name}")[0][0] for name in names]
        assert settings == ["on", "UTC", "200", ""]
        with redis.Redis.from_url(running.redis_url) as link:
            assert link.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert link.config_get("bind") == {"bind": "127.0.0.1"}
        started = set(descendants(os.getpid())) - before
        assert len(started) > 2
    assert not any(is_alive(pid) for pid in started)


def test_redis_asks_for_its_password(folder: Path) -> None:
    with servers(folder) as running:
        port = running.redis_url.rpartition(":")[2].partition("/")[0]
        with redis.Redis(port=int(port)) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_a_restart_finds_what_was_there(folder: Path) -> None:
    with servers(folder) as running:
        ask(running.database_url, "CREATE TABLE kept AS SELECT 42 AS number")
    with servers(folder) as running:
        assert ask(running.database_url, "SELECT number FROM kept") == [(42,)]


def test_a_postgres_that_is_killed_comes_back_with_all_that_was_committed(folder: Path) -> None:
    postgres = Postgres(folder)
    try:
        postgres.start()
        ask(postgres.url, "CREATE TABLE committed AS SELECT 42 AS number")
        with psycopg.connect(postgres.url):
            assert postgres.pid
            os.kill(postgres.pid, signal.SIGKILL)
            assert until(lambda: postgres.poll() is not None)
        assert (folder / "postgres" / "postmaster.pid").exists()
        postgres.start()
        assert ask(postgres.url, "SELECT number FROM committed") == [(42,)]
    finally:
        postgres.stop()


def test_a_redis_that_is_killed_comes_back_at_the_same_url(folder: Path) -> None:
    server = Redis(folder)
    try:
        server.start()
        url = server.url
        assert server.pid
        os.kill(server.pid, signal.SIGKILL)
        assert until(lambda: server.poll() is not None)
        server.start()
        assert server.url == url
        with redis.Redis.from_url(url) as link:
            assert link.ping()
    finally:
        server.stop()


def test_a_note_whose_process_id_belongs_to_another_program_by_now_is_no_obstacle(folder: Path) -> None:
    postgres = Postgres(folder)
    postgres.start()
    note = (folder / "postgres" / "postmaster.pid").read_text()
    postgres.stop()
    bystander = subprocess.Popen(["sleep", "600"], user="nobody" if os.geteuid() == 0 else None)
    try:
        _, _, rest = note.partition("\n")
        (folder / "postgres" / "postmaster.pid").write_text(f"{bystander.pid}\n{rest}")
        with servers(folder) as running:
            assert ask(running.database_url, "SELECT 1") == [(1,)]
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_servers_of_a_process_that_is_killed_die_with_it(folder: Path) -> None:
    code = "import sys, time; from pathlib import Path; from app.embedded import servers\n"
    code += "with servers(Path(sys.argv[1])): print('up', flush=True); time.sleep(600)"
    owner = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    with owner.stdout:
        assert owner.stdout.readline() == "up\n"
        started = descendants(owner.pid)
        owner.kill()
        owner.wait()
    assert started
    assert until(lambda: not any(is_alive(pid) for pid in started))
    with servers(folder) as running:
        assert ask(running.database_url, "SELECT 1") == [(1,)]


def test_an_initdb_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    half = tmp_path / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18")
    with servers(tmp_path) as running:
        assert ask(running.database_url, "SELECT 1") == [(1,)]


def test_a_folder_has_one_owner_and_a_machine_has_many_folders(folder: Path, tmp_path: Path) -> None:
    with servers(folder), servers(tmp_path) as other:
        assert ask(other.database_url, "SELECT 1") == [(1,)]
        with pytest.raises(EmbeddedError, match=f"in use.*process {os.getpid()}"), servers(folder):
            pass


@pytest.mark.parametrize("name", ["deep" * 30, "a b, c'd, überall"])
def test_any_folder_will_do(tmp_path: Path, name: str) -> None:
    with servers(tmp_path / name) as running:
        assert ask(running.database_url, "SELECT 1") == [(1,)]


def test_a_postgres_that_cannot_start_says_why(folder: Path) -> None:
    settings = folder / "postgres" / "postgresql.auto.conf"
    settings.write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match="no_such_setting"), servers(folder):
        pass
    settings.write_text("")


def test_a_wheel_that_is_not_there_is_named_with_the_way_around_it() -> None:
    with pytest.raises(EmbeddedError, match=r"sweetspot\[embedded\].*DATABASE_URL"):
        embedded._binaries("no_such_wheel", "bin", "postgres")


def test_a_free_port_can_be_listened_on() -> None:
    assert 1024 <= free_port() <= 65535
