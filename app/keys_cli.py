"""`sweetspot keys`: who may ask the service. It talks to the database, since the first key cannot be asked for with a key."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from app.settings import SettingsError, settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

keys_cli = typer.Typer(help="Make, list and revoke the keys of the API.", no_args_is_help=True)
LONGEST = 3650  # days
WIDE = 240  # columns, where no terminal says how many there are
EPILOG = "Of the database at DATABASE_URL, else of the `sweetspot up` that runs on the data folder."
QuotaOption = Annotated[int | None, typer.Option(min=1, show_default="no limit")]


class KeysError(RuntimeError):
    """What a command about keys cannot do."""


def _lasting(text: str) -> timedelta | None:
    if text == "none":
        return None
    match = re.fullmatch(r"(\d{1,4})d", text)
    if match is None or not 1 <= int(match[1]) <= LONGEST:
        raise typer.BadParameter(f"1d to {LONGEST}d, or none, not {text!r}")
    return timedelta(days=int(match[1]))


@keys_cli.command(epilog=EPILOG)
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    owner: Annotated[
        str, typer.Option(help="Whose things it makes and sees; several keys may have one owner.", show_default="NAME")
    ] = "",
    scope: Annotated[list[str], typer.Option(help="read, submit or admin; may come several times.")] = ["read", "submit"],  # noqa: B006
    expires: Annotated[str, typer.Option(help="Days, as 90d, or none.")] = "90d",
    max_queued: QuotaOption = None,
    max_running: QuotaOption = None,
    max_stored_bytes: QuotaOption = None,
    per_minute: Annotated[int, typer.Option(min=0, help="Requests a minute; 0 is any number.")] = 600,
) -> None:
    """Make a key. Its secret goes to standard output, this once."""
    from app.persistence import keys  # noqa: PLC0415
    from app.persistence.callers import SCOPES  # noqa: PLC0415

    if not set(scope) <= set(SCOPES):
        raise typer.BadParameter(f"{', '.join(SCOPES)}, not {', '.join(scope)}", param_hint="--scope")
    lasts = _lasting(expires)
    until = None if lasts is None else datetime.now(UTC) + lasts
    quotas = {"max_queued": max_queued, "max_running": max_running, "max_stored_bytes": max_stored_bytes}
    with _database() as session:
        key, secret = keys.create(session, name, owner or name, set(scope), until, quotas | {"per_minute": per_minute or None})
        session.commit()
    typer.echo(secret)
    ends = f"until {until:%Y-%m-%d}" if until else "for ever"
    typer.echo(f"{key.id}: {', '.join(key.scopes)} as {key.owner}, {ends}; the secret is not shown again", err=True)


@keys_cli.command("list", epilog=EPILOG)
def list_keys() -> None:
    """List the keys, newest first, without their secrets."""
    from rich.console import Console  # noqa: PLC0415

    from app import tables  # noqa: PLC0415
    from app.persistence import keys  # noqa: PLC0415

    with _database() as session:
        Console(width=None if sys.stdout.isatty() else WIDE).print(tables.keys(keys.page(session)))


@keys_cli.command(epilog=EPILOG)
def revoke(key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="key_...")]) -> None:
    """Refuse a key from now on; what it made stays."""
    from app.errors import NotFound  # noqa: PLC0415
    from app.persistence import keys  # noqa: PLC0415

    with _database() as session:
        try:
            keys.revoke(session, key_id)
        except NotFound as error:
            raise KeysError(error.detail) from None
        session.commit()
    typer.echo(f"{key_id} is revoked", err=True)


def require_key(host: str) -> None:
    """The API may listen on `host`: there are keys, or nobody asks for them. Raises KeysError."""
    if settings().auth == "off":
        words = f"SWEETSPOT_AUTH is off: whoever reaches {host} may train, cancel and delete"
        typer.secho(f"warning: {words}", fg="yellow", err=True)
        return
    from app.persistence import keys  # noqa: PLC0415

    with _database() as session:
        if not keys.any_usable(session):
            raise KeysError(
                f"on {host} the API asks for keys, and there is none yet that is good. Make one first:\n"
                "  sweetspot keys create me --scope admin\n"
                "SWEETSPOT_AUTH=off serves whoever reaches it, without keys."
            )


@contextmanager
def _database() -> "Iterator[Session]":
    from sqlalchemy import create_engine  # noqa: PLC0415
    from sqlalchemy.exc import OperationalError, ProgrammingError  # noqa: PLC0415
    from sqlalchemy.orm import Session  # noqa: PLC0415

    from app import runtime  # noqa: PLC0415
    from app.settings import sqlalchemy_url  # noqa: PLC0415

    running = runtime.read(settings().data_dir) if settings().database_url is None else None
    if running is None and settings().database_url is None:
        raise SettingsError("DATABASE_URL is not set, and no `sweetspot up` runs on the data folder (SWEETSPOT_DATA_DIR)")
    url = sqlalchemy_url(running.database_url) if running else settings().require_database_url()
    engine = create_engine(url, connect_args={"connect_timeout": 5, "options": "-c timezone=UTC"})
    try:
        with Session(engine, expire_on_commit=False) as session:
            yield session
    except OperationalError as error:
        raise KeysError(f"the database does not answer: {str(error.orig).splitlines()[0]}") from None
    except ProgrammingError:
        raise KeysError("the database has no tables for keys yet; `sweetspot migrate` makes them") from None
    finally:
        engine.dispose()
