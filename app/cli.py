"""The command line. What a command needs is imported when it runs, so that `sweetspot --help` answers at once."""

import os
import re
import socket
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from app.keys_cli import KeysError, keys_cli, require_key
from app.settings import SettingsError, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from app.backup import Manifest
    from app.client import CurveFormat, Json, Sweetspot

cli = typer.Typer(
    help="Which views should contrastive learning use? Mutual information against accuracy, and its sweet spot.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_HERE = "On this machine"
_ASK = "Ask the service"
_PARTS = "Single parts, for many machines"
_KEEP = "Keep and tidy"

cli.add_typer(keys_cli, name="keys", rich_help_panel=_PARTS)
PortOption = Annotated[int | None, typer.Option("--port", help="Port of the API; 0 is any free one.", show_default="8000")]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the databases, artifacts and uploads.", show_default=".sweetspot")
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="SWEETSPOT_URL", help="The service.", show_default="the one that runs here"),
]


def _existing(file: Path) -> Path:
    if str(file) != "-" and not file.is_file():
        raise typer.BadParameter(f"there is no file {str(file)!r}")
    return file


SpecArgument = Annotated[Path, typer.Argument(metavar="FILE", callback=_existing, help="YAML or JSON; - is stdin.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="exp_..., swp_..., ds_..., mie_... or ckp_...")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Show its progress until it is finished.")]


def main() -> None:
    """Run the command line; what goes wrong is told on one screen, with exit status 1."""
    try:
        cli()
    except Exception as error:
        if not _is_ours(error):
            raise
        typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(str(error), err=True)
        sys.exit(1)


@cli.command(rich_help_panel=_HERE)
def up(
    port: PortOption = None,
    data_dir: DataDirOption = None,
    workers: Annotated[int | None, typer.Option(min=1, help="How many.", show_default="one per GPU, else one per core")] = None,
) -> None:
    """Run all of it on this machine, in this terminal: databases, API, workers."""
    from app.up import up as run  # noqa: PLC0415

    run(port, data_dir, workers)


@cli.command(rich_help_panel=_HERE)
def demo(
    seed: Annotated[int | None, typer.Option(min=0, help="First seed.", show_default="the preset's")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service up.")] = False,
    port: PortOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Trace a real curve in minutes: how much noise should two views of a handwritten digit carry?"""
    from app.demo import demo as run  # noqa: PLC0415

    raise typer.Exit(run(seed, keep, port, data_dir))


@cli.command(rich_help_panel=_ASK)
def submit(file: SpecArgument, wait: WaitOption = False, url: UrlOption = None) -> None:
    """Queue an experiment."""
    with _service(url) as service:
        _queued(service, service.submit(_read(file)), wait)


@cli.command(rich_help_panel=_ASK)
def sweep(file: SpecArgument, wait: WaitOption = False, url: UrlOption = None) -> None:
    """Queue experiments along an axis."""
    with _service(url) as service:
        _queued(service, service.sweep(_read(file)), wait)


@cli.command(rich_help_panel=_ASK)
def presets(url: UrlOption = None) -> None:
    """List the experiments that are ready to run, with their sizes and what those take here."""
    from rich.console import Console  # noqa: PLC0415

    from app import tables  # noqa: PLC0415

    with _service(url) as service:
        Console().print(tables.presets(service.catalog("presets")))


@cli.command(rich_help_panel=_ASK)
def preset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of `sweetspot presets`.")],
    size: Annotated[str | None, typer.Option(help="quick, standard or full.", show_default="standard")] = None,
    dataset: Annotated[str | None, typer.Option(help="What to pretrain on.", show_default="the preset's")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="First seed.", show_default="the preset's")] = None,
    wait: WaitOption = False,
    url: UrlOption = None,
) -> None:
    """Queue a sweep that is ready to run: one of the paper's experiments, or another."""
    sizes = ("quick", "standard", "full")
    if size not in (None, *sizes):
        raise typer.BadParameter(f"{', '.join(sizes)}, not {size}", param_hint="--size")
    with _service(url) as service:
        _queued(service, service.run_preset(name, size=size, dataset=dataset, seed=seed), wait)


@cli.command(rich_help_panel=_ASK)
def upload(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A zip of images, or an npz.")],
    name: Annotated[str | None, typer.Option(help="A title.", show_default="the file's name")] = None,
    layout: Annotated[
        str | None, typer.Option(help="class_folders, photos, array, clips or paired.", show_default="guessed")
    ] = None,
    wait: WaitOption = False,
    url: UrlOption = None,
) -> None:
    """Upload a dataset of your own; experiments name it by its id, and may be submitted at once."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import open as open_with_bar  # noqa: PLC0415

    console = Console(stderr=True)
    with _service(url) as service:
        with open_with_bar(file, "rb", description="uploading", console=console, disable=not console.is_terminal) as opened:
            found = service.upload(opened, name=name, layout=layout)
        typer.echo(found["id"])  # alone, since scripts take it for their specs
        typer.echo(found["state"], err=True)
        _follow(service, found, wait, console)


@cli.command(rich_help_panel=_ASK)
def evaluate(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", exists=True, dir_okay=False, help="Weights: safetensors, or what torch.save wrote."),
    ],
    file: SpecArgument,
    wait: WaitOption = False,
    url: UrlOption = None,
) -> None:
    """Measure an encoder of your own as it is: the spec says which architecture, and on which views, dataset and tasks."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import open as open_with_bar  # noqa: PLC0415

    spec = _read(file)
    encoder = spec.get("encoder")
    if not isinstance(encoder, dict) or "kind" not in encoder:
        raise _SpecFileError(f"{file} needs `encoder` with a `kind`: the architecture of the checkpoint")
    console = Console(stderr=True)
    with _service(url) as service:
        shown = {"description": "uploading", "console": console, "disable": not console.is_terminal}
        with open_with_bar(checkpoint, "rb", **shown) as opened:
            found = service.upload_checkpoint(opened)
        method = spec.get("method")
        as_it_is = method if isinstance(method, dict) and method.get("kind") == "frozen" else {"kind": "frozen"}
        asked = {**spec, "encoder": {**encoder, "weights": found["id"]}, "method": as_it_is}
        _queued(service, service.submit(asked), wait)


@cli.command(rich_help_panel=_ASK)
def datasets(url: UrlOption = None) -> None:
    """List the uploaded datasets, newest first."""
    from rich.console import Console  # noqa: PLC0415

    from app import tables  # noqa: PLC0415

    with _service(url) as service:
        Console().print(tables.datasets(service.datasets()))


@cli.command(rich_help_panel=_ASK)
def status(
    id: IdArgument,
    as_json: Annotated[bool, typer.Option("--json", help="As the API has it.")] = False,
    url: UrlOption = None,
) -> None:
    """Show how an experiment, a sweep, an uploaded dataset or an estimate stands, or what a checkpoint is."""
    from rich.console import Console  # noqa: PLC0415

    with _service(url) as service:
        found = service.get(id)
        if as_json:
            typer.echo(_json(found))
        else:
            _show(service, found, Console())


@cli.command(rich_help_panel=_ASK)
def cancel(id: IdArgument, url: UrlOption = None) -> None:
    """Stop an experiment, a sweep or an estimate; what has finished stays."""
    with _service(url) as service:
        typer.echo(f"{id} is {service.cancel(id)['state']}")


@cli.command(rich_help_panel=_ASK)
def retry(id: IdArgument, wait: WaitOption = False, url: UrlOption = None) -> None:
    """Run an experiment anew, or what failed or was cancelled of a sweep."""
    with _service(url) as service:
        _queued(service, service.retry(id), wait)


@cli.command(rich_help_panel=_ASK)
def curve(
    id: Annotated[str, typer.Argument(metavar="ID", help="swp_...")],
    output: Annotated[Path, typer.Option("-o", "--output", help="What ends in .json, .csv, .svg, .png, .pdf or .vl.json.")],
    url: UrlOption = None,
) -> None:
    """Write a sweep's curve into a file; while the sweep runs, of what is there."""
    format = _curve_format(output)
    with _service(url) as service:
        found = service.curve(id, format)
    output.write_bytes(found if isinstance(found, bytes) else _json(found).encode())
    typer.echo(f"{output}")


@cli.command(rich_help_panel=_ASK)
def report(
    id: Annotated[str, typer.Argument(metavar="ID", help="swp_...")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .html.")] = Path("report.html"),
    url: UrlOption = None,
) -> None:
    """Write all of a sweep into one HTML file: question, answer, curve, views, and how to do it again."""
    with _service(url) as service:
        output.write_bytes(service.report(id))
    typer.echo(f"{output}")


@cli.command(rich_help_panel=_ASK)
def recipe(
    id: Annotated[str, typer.Argument(metavar="ID", help="swp_...")],
    format: Annotated[str, typer.Option(help="torchvision, lightly or json.")] = "torchvision",
    task: Annotated[str | None, typer.Option(help="The task that chooses.", show_default="the sweep's first")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file.", show_default="the terminal")] = None,
    url: UrlOption = None,
) -> None:
    """Take the winning recipe of a sweep away: as Python that makes its views, or as a spec to submit."""
    from app.client import RecipeFormat  # noqa: PLC0415

    formats: tuple[RecipeFormat, ...] = get_args(RecipeFormat)
    if format not in formats:
        raise typer.BadParameter(f"{', '.join(formats)}, not {format}", param_hint="--format")
    with _service(url) as service:
        found = service.recipe(id, format, task)
    text = found if isinstance(found, str) else f"{_json(found['spec'])}\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    typer.echo(f"{output}")


@cli.command(rich_help_panel=_ASK)
def preview(
    file: SpecArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="A .png.")] = Path("preview.png"),
    url: UrlOption = None,
) -> None:
    """Draw view pairs of a spec's dataset and views, before anything is trained."""
    spec = _read(file)
    spec = spec.get("base", spec)
    if not isinstance(spec, dict) or not {"dataset", "views"} <= spec.keys():
        raise _SpecFileError(f"{file} needs `dataset` and `views`, as an experiment has them")
    with _service(url) as service:
        output.write_bytes(service.preview(spec["dataset"], spec["views"]))
    typer.echo(f"{output}")


@cli.command(rich_help_panel=_ASK)
def estimate_mi(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.npz", exists=True, dir_okay=False, help="An npz of x and y, [N, d] each, in pairs.")
    ],
    estimators: Annotated[
        str | None, typer.Option(help="Names with commas between.", show_default="infonce,leave_one_out,cca")
    ] = None,
    critic: Annotated[str | None, typer.Option(help="separable, bilinear or concatenated.", show_default="separable")] = None,
    k: Annotated[
        int | None,
        typer.Option("-k", "--k", help="Candidates: the ceiling is log K.", show_default="what is held out, 2048 at most"),
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="Trainings, each read on pairs of its own.", show_default="3")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every chance.", show_default="0")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As the API has it.")] = False,
    url: UrlOption = None,
) -> None:
    """Estimate the mutual information of two arrays of your own, in nats, and say what to think of it."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import open as open_with_bar  # noqa: PLC0415

    from app.progress import follow  # noqa: PLC0415

    console = Console(stderr=True)
    asked = {"critic": critic, "k": k, "repeats": repeats, "seed": seed}
    with _service(url) as service:
        with open_with_bar(file, "rb", description="uploading", console=console, disable=not console.is_terminal) as opened:
            found = service.estimate_mi(opened, estimators=estimators, **asked)
        found = follow(service, found["id"], console)
        if as_json:
            typer.echo(_json(found))
        else:
            _show(service, found, Console())
    if found["state"] != "succeeded":
        raise typer.Exit(1)


@cli.command(rich_help_panel=_PARTS)
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: PortOption = None,
) -> None:
    """Run the API alone. Needs DATABASE_URL and REDIS_URL, and a key where it listens on more than the loopback."""
    settings().require_database_url(), settings().require_redis_url()
    if not _is_loopback(host):
        require_key(host)
        os.environ["SWEETSPOT_AUTH"] = "off" if settings().auth == "off" else "on"  # whoever reaches it may be of another machine
    listen = ["--host", host, "--port", str(settings().port if port is None else port)]
    _become(
        "uvicorn",
        "app.main:create_app",
        "--factory",
        *listen,
        "--ws",
        "none",
        "--no-access-log",
        "--timeout-graceful-shutdown",
        "3",
    )


@cli.command(rich_help_panel=_PARTS)
def worker(
    name: Annotated[str | None, typer.Option(help="Unlike every other's.", show_default="host and process id")] = None,
) -> None:
    """Run one worker, on one device. Needs DATABASE_URL and REDIS_URL."""
    settings().require_database_url(), settings().require_redis_url()
    _become("workers", "--name", name or f"{socket.gethostname()}-{os.getpid()}")


@cli.command(rich_help_panel=_PARTS)
def migrate() -> None:
    """Bring the database to this version's tables. Needs DATABASE_URL."""
    settings().require_database_url()
    _become("migrations")


@cli.command(rich_help_panel=_KEEP)
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="To be written; it holds whatever the service knows.")],
    data_dir: DataDirOption = None,
) -> None:
    """Write the database and its files into one tar, while the service runs. Of the data folder, or of DATABASE_URL."""
    from app import backup as backups  # noqa: PLC0415

    with _on(data_dir):
        _told(backups.make(file), file)


@cli.command(rich_help_panel=_KEEP)
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", exists=True, dir_okay=False, help="What `backup` wrote.")],
    data_dir: DataDirOption = None,
) -> None:
    """Bring a backup into an empty data folder, or into an empty database (DATABASE_URL) and an empty artifacts folder."""
    from app import backup as backups  # noqa: PLC0415

    with _on(data_dir, may_be_new=True):
        _told(backups.restore(file), settings().artifacts_dir)


@cli.command(rich_help_panel=_KEEP)
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    data_dir: DataDirOption = None,
) -> None:
    """Remove files that nobody has a use for, and what was kept for long enough; the reconciler does it hourly."""
    from app.persistence import files, garbage, schema  # noqa: PLC0415
    from app.persistence.database import open_session  # noqa: PLC0415

    with _on(data_dir), open_session() as session:
        if fault := schema.fault(session):
            raise SettingsError(f"the database: {fault}")
        found = garbage.find(session)
        session.commit()
        total = 0
        for one in found:
            size = files.size(one.path)
            total += size
            typer.echo(f"{size:>14,}  {one.path}  {one.why}")
        done = not dry_run and garbage.retire(session)
        session.commit()
        if done:
            garbage.remove(session)
            session.commit()
    typer.echo(f"{'removed' if done else 'would remove'} {total:,} bytes in {len(found)} places", err=True)
    if not dry_run and not done:
        typer.echo("nothing was removed: a backup, or another one of these, is at it", err=True)
        raise typer.Exit(1)


class _SpecFileError(ValueError):
    """A file that cannot be read as a spec, and where."""


def _is_ours(error: Exception) -> bool:
    """Whether the error is one that says all there is to say."""
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415

    from app.backup import BackupError  # noqa: PLC0415
    from app.client import SweetspotError  # noqa: PLC0415
    from app.embedded import EmbeddedError  # noqa: PLC0415
    from app.up import UpError  # noqa: PLC0415

    ours = SweetspotError | UpError | EmbeddedError | KeysError | BackupError | SettingsError | _SpecFileError | OSError
    return isinstance(error, ours | OperationalError)


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address  # noqa: PLC0415

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _on(data_dir: Path | None, may_be_new: bool = False) -> "Iterator[None]":
    """The settings are those of a data folder, and its database answers."""
    from app import backup as backups  # noqa: PLC0415

    if data_dir is not None:
        os.environ["SWEETSPOT_DATA_DIR"] = str(data_dir)
        settings.cache_clear()
    with backups.database(may_be_new):
        yield


def _told(manifest: "Manifest", where: Path) -> None:
    for name, fault in manifest.faults.items():
        typer.echo(f"{name}: {fault} when the backup was made", err=True)
    size = sum(member["size"] for member in manifest.members.values())
    typer.echo(f"{where}: {len(manifest.members)} members, {size:,} bytes, tables of version {manifest.schema}")


def _service(url: str | None) -> "Sweetspot":
    from app.client import Sweetspot  # noqa: PLC0415

    return Sweetspot(url)


def _read(file: Path) -> "Json":
    """A mapping from YAML, of which JSON is a part. Raises _SpecFileError with the line at fault."""
    import yaml  # noqa: PLC0415

    class Loader(yaml.SafeLoader):
        """Reads 1e-3 as the number that it is in JSON and in YAML 1.2."""

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
    )
    name = "stdin" if str(file) == "-" else str(file)
    try:
        text = sys.stdin.read() if name == "stdin" else file.read_text()
        found = yaml.load(text, Loader)  # nosec B506 # it is a SafeLoader
    except UnicodeDecodeError:
        raise _SpecFileError(f"{name} is not text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _SpecFileError(f"{name}{place}: {error.problem}\n{mark.get_snippet() if mark else ''}") from None
    except yaml.YAMLError as error:
        raise _SpecFileError(f"{name}: {error}") from None
    if not isinstance(found, dict):
        raise _SpecFileError(f"{name} must hold a mapping of fields to values, not {type(found).__name__}")
    return found


def _queued(service: "Sweetspot", found: "Json", wait: bool) -> None:
    from rich.console import Console  # noqa: PLC0415

    typer.echo(f"{found['id']} {found['state']}")
    _follow(service, found, wait, Console())


def _follow(service: "Sweetspot", found: "Json", wait: bool, shown_on: "Console") -> None:
    """Say how to ask for it, or wait for it and show what came of it."""
    if not wait:
        typer.echo(f"sweetspot status {found['id']}", err=True)
        return
    from rich.console import Console  # noqa: PLC0415

    from app.progress import follow  # noqa: PLC0415

    found = follow(service, found["id"], Console(stderr=True))
    _show(service, found, shown_on)
    if found["state"] not in ("succeeded", "ready"):
        raise typer.Exit(1)


def _show(service: "Sweetspot", found: "Json", console: "Console") -> None:
    from app import tables  # noqa: PLC0415

    kind = found["id"].partition("_")[0]
    shown = {
        "exp": tables.experiment,
        "swp": tables.sweep,
        "ds": tables.dataset,
        "mie": tables.mi_estimate,
        "ckp": tables.checkpoint,
    }
    console.print(shown[kind](found))
    if kind == "swp":
        curve = service.curve(found["id"])
        for name, verdict in curve["verdicts"].items():
            console.print(tables.curve(curve, name))
            console.print(f"{name}: {verdict['words']}", style="bold", soft_wrap=True, markup=False, highlight=False)
        shown_below = (tables.predictors(curve), tables.ablation(curve), tables.paper(found.get("paper")))
        for table in shown_below:
            if table.row_count:
                console.print(table)
    if kind == "mie" and found["results"]:
        console.print(found["results"]["verdict"], soft_wrap=True, markup=False, highlight=False)


def _curve_format(output: Path) -> "CurveFormat":
    from app.client import CurveFormat  # noqa: PLC0415

    formats: tuple[CurveFormat, ...] = get_args(CurveFormat)
    for format in sorted(formats, key=len, reverse=True):
        if output.name.endswith(f".{format}"):
            return format
    raise typer.BadParameter(f"{output} must end in one of .{', .'.join(formats)}", param_hint="--output")


def _json(found: Any) -> str:
    import json  # noqa: PLC0415

    return json.dumps(found, indent=2, ensure_ascii=False)


def _become(module: str, *arguments: str) -> None:
    """Go on as `python -m module`, so that signals reach it and nothing stands above it."""
    from app.children import own_code  # noqa: PLC0415

    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], os.environ | own_code())


if __name__ == "__main__":
    main()
