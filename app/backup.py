"""Backups of what cannot be made again: the database and the files that its rows own, in one tar, while the service runs.

The tables are read in one transaction, as they were at one moment. The files are read after it: those of what is finished never
change, and no garbage is collected meanwhile; what somebody deleted in between is named in the manifest. That comes last, with
the SHA-256 of every member. The folder of datasets is no part of it.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

import psycopg
from alembic import command
from alembic.script import ScriptDirectory
from psycopg import sql

from app import runtime
from app.embedded import Postgres
from app.logs import redacted
from app.persistence import files, schema
from app.persistence.leases import KINDS
from app.persistence.models import IDLE, TERMINAL, Base, SignIn, Worker
from app.settings import settings
from app.version import VERSION
from migrations.__main__ import config

FORMAT = 1
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 2**30  # bytes
CHUNK = 2**20
NOT_KEPT = {Worker.__tablename__, SignIn.__tablename__}  # who lives will say so, and who is signed in will do so again


class BackupError(RuntimeError):
    """A backup cannot be made or restored, and why."""


@dataclass
class Manifest:
    """What a backup holds: of each table its columns, in the order in which tables can be filled; of each member size and hash.

    `links` are further names of members; `faults` say what was not there, or not what its row says, when the backup was made.
    """

    schema: str
    version: str = VERSION
    format: int = FORMAT
    made_at: str = ""
    columns: dict[str, list[str]] = field(default_factory=dict)
    members: dict[str, dict[str, Any]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def sha256(self, name: str) -> str | None:
        """Of a member, under any of its names."""
        return self.members.get(self.links.get(name, name), {}).get("sha256")


@contextmanager
def database(may_be_new: bool = False) -> Iterator[None]:
    """Until the end of the block the settings name a database: that which they named, or else the data folder's own, which is
    started for the time unless `sweetspot up` runs on it. Raises BackupError, EmbeddedError."""
    given, running = settings().database_url, runtime.read(settings().data_dir)
    if given and running and running.database_url != given:
        raise BackupError(f"DATABASE_URL names another database than the service has that runs on {settings().data_dir}")
    if given:
        yield
        return
    server = None if running else Postgres(settings().data_dir)
    if server and not may_be_new and not server.home.is_dir():
        raise BackupError(f"there is no database in {settings().data_dir}, and DATABASE_URL names none")
    try:
        if server:
            server.start()
        os.environ["DATABASE_URL"] = running.database_url if running else server.url  # type: ignore[union-attr]
        settings.cache_clear()
        yield
    finally:
        os.environ.pop("DATABASE_URL", None)
        settings.cache_clear()
        if server:
            server.stop()


def make(target: Path) -> Manifest:
    """Write a backup, readable by its owner alone, whole or not at all. Raises BackupError, OSError."""
    if target.exists():
        raise BackupError(f"{target} is there already; a backup replaces nothing")
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file, _connected() as link:
            link.execute("SELECT pg_advisory_lock_shared(%s)", [files.LOCK])
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                manifest, owned = _copy_tables(link, tar, target.parent)
                _copy_files(tar, manifest, owned)
                content = json.dumps(asdict(manifest), indent=1).encode()
                tar.addfile(_header(MANIFEST, len(content)), io.BytesIO(content))
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return manifest


def restore(source: Path) -> Manifest:
    """Bring a backup into an empty database and an empty artifacts folder, all of it or nothing. What a worker held is queued.

    Raises BackupError, OSError.
    """
    folder = settings().artifacts_dir
    folder.mkdir(parents=True, exist_ok=True)
    _require_no_files(folder)
    staging = Path(tempfile.mkdtemp(prefix=".restore-", dir=folder))
    placed: list[Path] = []
    try:
        manifest = _unpack(source, staging)
        with _connected() as link:
            link.execute("SELECT pg_advisory_lock_shared(%s)", [files.LOCK])
            _make_tables(link, manifest)
            with link.transaction():
                _fill(link, manifest, staging)
                _check_hashes(link, manifest)
                _let_go(link, manifest)
                _place(staging / "files", folder, placed)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    command.upgrade(config(), "head")
    return manifest


# Making ---------------------------------------------------------------------------------------------------------------


def _copy_tables(link: psycopg.Connection, tar: tarfile.TarFile, spool_folder: Path) -> tuple[Manifest, "_Owned"]:
    link.isolation_level, link.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
    with link.transaction():
        found = _version(link)
        if found != schema.newest():
            raise BackupError(f"the database's tables are of version {found}, and this is for {schema.newest()}: migrate first")
        manifest = Manifest(schema=found, made_at=datetime.now(UTC).isoformat(timespec="seconds"))
        for table in Base.metadata.sorted_tables:
            if table.name in NOT_KEPT:
                continue
            manifest.columns[table.name] = [column.name for column in table.columns]
            query = sql.SQL("COPY {} TO STDOUT").format(_table(manifest, table.name))
            with tempfile.TemporaryFile(dir=spool_folder) as spool, link.cursor().copy(query) as rows:
                for row in rows:
                    spool.write(row)
                size = spool.tell()
                spool.seek(0)
                _add(tar, manifest, f"database/{table.name}", spool, size)
        owned = _Owned.read(link)
    link.isolation_level = link.read_only = None
    return manifest, owned


def _copy_files(tar: tarfile.TarFile, manifest: Manifest, owned: "_Owned") -> None:
    seen: dict[tuple[int, ...], str] = {}
    for path, sha256, wanted in owned.files():
        name = f"files/{path.relative_to(settings().artifacts_dir).as_posix()}"
        try:
            with path.open("rb") as file:
                known = os.fstat(file.fileno())
                first = seen.setdefault((known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns), name)
                if first != name:
                    manifest.links[name] = first
                else:
                    _add(tar, manifest, name, file, known.st_size)
        except FileNotFoundError:
            if wanted:
                manifest.faults[name] = "it was not there"
        else:
            if sha256 is not None and manifest.sha256(name) != sha256:
                manifest.faults[name] = "it was not what its row says"


@dataclass(frozen=True)
class _Owned:
    """The rows that own files."""

    experiments: list[tuple[str, str, int]]
    artifacts: list[tuple[str, int, str, str]]
    datasets: list[tuple[str, str, str]]
    estimates: list[tuple[str]]
    checkpoints: list[tuple[str]]

    @classmethod
    def read(cls, link: psycopg.Connection) -> "_Owned":
        return cls(
            link.execute("SELECT id, state, attempt FROM experiments ORDER BY id").fetchall(),
            link.execute(CURRENT_ARTIFACTS).fetchall(),
            link.execute("SELECT id, state, sha256 FROM datasets ORDER BY id").fetchall(),
            link.execute("SELECT id FROM mi_estimates WHERE finished_at IS NULL ORDER BY id").fetchall(),
            link.execute("SELECT DISTINCT id FROM checkpoints ORDER BY id").fetchall(),
        )

    def files(self) -> Iterator[tuple[Path, str | None, bool]]:
        """Each with its SHA-256, where a row says it, and whether it must be there; looked for when it is its turn."""
        for experiment_id, attempt, name, sha256 in self.artifacts:
            yield files.attempt_folder(experiment_id, attempt) / name, sha256, True
        for experiment_id, state, _ in self.experiments:
            if state in TERMINAL:
                for path in sorted(files.experiment_folder(experiment_id).glob(f"a*/{files.LOG}")):
                    yield path, None, False
            if state not in ("succeeded", "failed"):
                for path in sorted(files.checkpoints_folder(experiment_id).glob("[!.]*")):
                    yield path, None, False
        for sha256 in sorted({sha256 for _, state, sha256 in self.datasets if state != "failed"}):
            yield files.blob(sha256), sha256, True
        for dataset_id, state, _ in self.datasets:
            if state == "succeeded":
                folder = files.dataset_folder(dataset_id)
                there = {path for path in folder.rglob("*") if path.is_file()}
                yield from ((path, None, True) for path in sorted({folder / files.FACTS} | there))
        for (estimate_id,) in self.estimates:
            yield files.arrays(estimate_id), None, True
        for (checkpoint_id,) in self.checkpoints:
            sha256 = checkpoint_id.removeprefix("ckp_")
            yield files.checkpoint(sha256), sha256, True
            yield files.description(files.checkpoint(sha256)), None, False


CURRENT_ARTIFACTS = """
    SELECT artifacts.experiment_id, artifacts.attempt, artifacts.name, artifacts.sha256
    FROM artifacts JOIN experiments ON experiments.id = artifacts.experiment_id AND experiments.attempt = artifacts.attempt
    ORDER BY artifacts.experiment_id, artifacts.name
"""


def _add(tar: tarfile.TarFile, manifest: Manifest, name: str, file: IO[bytes], size: int) -> None:
    hashing = _Hashing(file)
    tar.addfile(_header(name, size), hashing)  # type: ignore[arg-type]
    manifest.members[name] = {"size": size, "sha256": hashing.digest.hexdigest()}


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o600
    return header


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.digest.update(content)
        return content


# Restoring ------------------------------------------------------------------------------------------------------------


def _unpack(source: Path, staging: Path) -> Manifest:
    """All members as files, each of which is what the manifest says."""
    found: dict[str, dict[str, Any]] = {}
    manifest = None
    try:
        with tarfile.open(source, "r:") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is None or manifest is not None or member.name in found:
                    raise BackupError(f"{source} is no backup of ours: {member.name!r} has no place in it")
                if member.name == MANIFEST:
                    manifest = _manifest(content.read(LARGEST_MANIFEST))
                    continue
                hashing = _Hashing(content)
                path = _below(staging, member.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    shutil.copyfileobj(hashing, file, CHUNK)  # type: ignore[misc]
                found[member.name] = {"size": member.size, "sha256": hashing.digest.hexdigest()}
    except (tarfile.TarError, EOFError) as error:
        raise BackupError(f"{source} is no backup, or damaged: {error}") from None
    if manifest is None:
        raise BackupError(f"{source} was cut off: its manifest, which comes last, is not there")
    for name in sorted(found.keys() | manifest.members.keys()):
        if found.get(name) != manifest.members.get(name):
            raise BackupError(f"{source} is damaged: {name} is not what the manifest says")
    for name, first in manifest.links.items():
        _link(_below(staging, first), _below(staging, name))
    return manifest


def _manifest(content: bytes) -> Manifest:
    try:
        manifest = Manifest(**json.loads(content))
    except (ValueError, TypeError) as error:
        raise BackupError(f"the manifest cannot be read: {error}") from None
    if manifest.format != FORMAT:
        raise BackupError(
            f"the backup is of format {manifest.format}, made by version {manifest.version}; this one reads {FORMAT}"
        )
    return manifest


def _below(staging: Path, name: str) -> Path:
    """Where a member belongs, which is nowhere else. Raises BackupError."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] not in (("files",), ("database",)) or len(path.parts) < 2:
        raise BackupError(f"a member is called {name!r}, which leads elsewhere")
    return staging / path


def _link(first: Path, other: Path) -> None:
    other.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(first, other)
    except OSError:  # a disk without hard links
        shutil.copyfile(first, other)


def _require_no_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".restore-"):
            raise BackupError(f"{folder} is not empty: {path.relative_to(folder)} is there; choose another data folder")


def _make_tables(link: psycopg.Connection, manifest: Manifest) -> None:
    """The tables as they were when the backup was made, which have never been filled."""
    known = [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()]
    if manifest.schema not in known:
        raise BackupError(
            f"the backup was made by version {manifest.version}, with tables of version {manifest.schema}, and this is version "
            f"{VERSION}, which knows those up to {schema.newest()}: restore it with a version as new as that"
        )
    found = _version(link)
    if found is not None and found not in known:
        raise BackupError(f"the database's tables are of version {found}, which this one does not know")
    _require_no_rows(link)
    if found is None or known.index(found) > known.index(manifest.schema):  # the newest comes first
        command.upgrade(config(), manifest.schema)
    elif found != manifest.schema:
        command.downgrade(config(), manifest.schema)


def _require_no_rows(link: psycopg.Connection) -> None:
    for name in _tables(link):
        if name not in NOT_KEPT and link.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(name))).fetchone():
            raise BackupError(f"the database is not empty: there are {name}; choose another one")


def _fill(link: psycopg.Connection, manifest: Manifest, staging: Path) -> None:
    there = _tables(link)
    for name in manifest.columns:
        if name not in there:
            raise BackupError(f"the backup has rows of {name!r}, which is no table of version {manifest.schema}")
        link.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(sql.Identifier(name)))
    _require_no_rows(link)
    for name in manifest.columns:
        query = sql.SQL("COPY {} FROM STDIN").format(_table(manifest, name))
        with _below(staging, f"database/{name}").open("rb") as file, link.cursor().copy(query) as rows:
            while chunk := file.read(CHUNK):
                rows.write(chunk)


def _check_hashes(link: psycopg.Connection, manifest: Manifest) -> None:
    """The files are those that rows and names tell of, but for what was wrong already when the backup was made."""
    rows = link.execute(CURRENT_ARTIFACTS).fetchall()
    told = {f"files/{experiment_id}/a{attempt}/{name}": sha256 for experiment_id, attempt, name, sha256 in rows}
    for name in manifest.members.keys() | manifest.links.keys():
        *folder, last = PurePosixPath(name).parts
        if folder in (["files", "uploads", "blobs"], ["files", "uploads", "checkpoints"]) and not last.endswith(".json"):
            told[name] = last
    for name, sha256 in told.items():
        if name not in manifest.faults and manifest.sha256(name) != sha256:
            raise BackupError(f"the backup contradicts itself: {name} is not the file of SHA-256 {sha256}")


def _let_go(link: psycopg.Connection, manifest: Manifest) -> None:
    """Leases of the service that was backed up are nobody's: what ran waits again, what was being cancelled is cancelled."""
    for model in KINDS.values():
        name = model.__tablename__
        if name not in manifest.columns:
            continue
        idle = ", progress = %(idle)s" if "progress" in manifest.columns[name] else ""
        told = ", last_event = last_event + 1" if name == "experiments" else ""
        freed = f"""
            UPDATE {name} SET lease_owner = NULL, lease_expires_at = NULL {told} {idle},
                state = CASE state WHEN 'running' THEN 'queued' ELSE 'cancelled' END,
                started_at = CASE state WHEN 'running' THEN NULL ELSE started_at END,
                finished_at = CASE state WHEN 'running' THEN NULL ELSE clock_timestamp() END
            WHERE lease_owner IS NOT NULL"""  # nosec B608 # names of our own tables and columns
        if name == "experiments":
            freed = f"""
                WITH freed AS ({freed} RETURNING id, last_event, attempt, state)
                INSERT INTO events (experiment_id, seq, attempt, type, data)
                SELECT id, last_event, attempt, CASE state WHEN 'queued' THEN 'requeued' ELSE state END,
                    CASE state WHEN 'queued' THEN %(why)s::jsonb ELSE '{{}}'::jsonb END FROM freed"""  # nosec B608 # as above
        why = {"code": "restored", "message": "restored from a backup; another attempt will follow"}
        link.execute(freed, {"idle": json.dumps(IDLE), "why": json.dumps(why)})


def _place(made: Path, folder: Path, placed: list[Path]) -> None:
    for path in sorted(made.rglob("*")):
        if path.is_file():
            where = folder / path.relative_to(made)
            where.parent.mkdir(parents=True, exist_ok=True)
            placed.append(where)
            path.rename(where)


# The database ---------------------------------------------------------------------------------------------------------


@contextmanager
def _connected() -> Iterator[psycopg.Connection]:
    """A connection on which copying may take its time. Raises BackupError."""
    url = settings().require_database_url().replace("postgresql+psycopg://", "postgresql://", 1)
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as link:
            for timeout in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"):
                link.execute(f"SET {timeout} = 0")
            link.execute("SET timezone = 'UTC'")
            yield link
    except psycopg.Error as error:
        raise BackupError(redacted(f"the database refuses: {error}")) from None


def _version(link: psycopg.Connection) -> str | None:
    with suppress(psycopg.errors.UndefinedTable), link.transaction():
        row = link.execute(sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(schema.VERSIONS))).fetchone()
        return row[0] if row else None
    return None


def _tables(link: psycopg.Connection) -> set[str]:
    """Those of ours that are there."""
    ours = {table.name for table in Base.metadata.sorted_tables}
    rows = link.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").fetchall()
    return ours & {name for (name,) in rows}


def _table(manifest: Manifest, name: str) -> sql.Composable:
    columns = sql.SQL(", ").join(map(sql.Identifier, manifest.columns[name]))
    return sql.SQL("{} ({})").format(sql.Identifier(name), columns)
