"""`sweetspot demo`: a real curve, by the real service, on real handwritten digits."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from app import launch, progress, runtime, tables
from app.children import own_code
from app.client import Json, Sweetspot, SweetspotError
from app.settings import settings
from app.up import UpError, usable_port

PRESET = "digits-noise"
FOLDER = Path("sweetspot-demo")
_STARTS_WITHIN = 180.0  # seconds, of which `up` itself takes two thirds before it gives up


def demo(seed: int | None = None, keep: bool = False, port: int | None = None, data_dir: Path | None = None) -> int:
    """Run the preset on the service of the data folder, which is started if need be; the exit status.

    0 with a verdict, whatever it is; 1 where experiments failed. Raises UpError where the service does not start.
    """
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # unwinds, as Ctrl-C does
    folder = (data_dir or settings().data_dir).resolve()
    with _service(folder, port, keep, console) as url, Sweetspot(url, key="") as service:
        sweep = service.run_preset(PRESET, seed=seed)
        console.print(f"Preset {PRESET}: {_described(service)}", highlight=False, soft_wrap=True)
        reused = sum(member["reused"] for member in sweep["experiments"])
        known = f", of which {reused} were done before and are reused" if reused else ""
        console.print(
            f"Submitted as {sweep['id']}: {sweep['counts']['total']} trainings{known}.", highlight=False, soft_wrap=True
        )
        sweep = _follow(service, sweep["id"], console)
        curve = service.curve(sweep["id"])
        _print_curve(curve, console)
        failed = [member for member in sweep["experiments"] if member["state"] != "succeeded"]
        for member in failed:
            reason = (member["error"] or {}).get("message", "no reason is known")
            console.print(f"{member['id']} {member['state']}: {reason}", style="red", highlight=False, soft_wrap=True)
        if any(point["experiments"] for point in curve["points"]):
            _write(service, sweep, curve)
            console.print(
                f"Written into {FOLDER}/: {', '.join(sorted(path.name for path in FOLDER.iterdir()))}",
                highlight=False,
                soft_wrap=True,
            )
        console.print(_farewell(url, sweep["id"], folder, keep), highlight=False, soft_wrap=True)
    if failed:
        console.print(
            f"{len(failed)} of {len(sweep['experiments'])} experiments did not succeed.",
            style="bold red",
            highlight=False,
            soft_wrap=True,
        )
    return 1 if failed else 0


def _follow(service: Sweetspot, id: str, console: Console) -> Json:
    """The finished sweep. One that nobody waits for any more is cancelled, lest the next demo queue up behind it."""
    try:
        return progress.follow(service, id, console)
    except (KeyboardInterrupt, SystemExit):
        with suppress(SweetspotError):
            service.cancel(id)
        raise


@contextmanager
def _service(folder: Path, port: int | None, keep: bool, console: Console) -> Iterator[str]:
    """The URL of the service of the data folder: the one that runs, or one started for the block."""
    running = runtime.read(folder)
    if running:
        console.print(f"Using the service at {running.api_url}.", highlight=False, soft_wrap=True)
        yield running.api_url
        return
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "up.log"
    command = [sys.executable, "-m", "app.cli", "up", "--port", str(_port(port)), "--data-dir", str(folder)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command if keep else launch.command(command, signal.SIGTERM),  # a demo that is killed takes it along
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | own_code(),
            start_new_session=True,
        )
    try:
        with console.status(f"Starting the service (its log: {log})"):
            url = _await_start(process, folder, log)
        console.print(f"Started the service at {url} (its log: {log}).", highlight=False, soft_wrap=True)
        yield url
    except BaseException:
        _end(process)
        raise
    if not keep:
        _end(process)


def _await_start(process: "subprocess.Popen[bytes]", folder: Path, log: Path) -> str:
    deadline = time.monotonic() + _STARTS_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        running = runtime.read(folder)
        if running:
            return running.api_url
        time.sleep(0.1)
    end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise UpError(f"the service did not start; the end of {log}:\n{end}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(60)
    process.kill()
    process.wait()


def _port(port: int | None) -> int:
    """The port asked for; where none was, the usual one or, where that is taken, a free one."""
    if port is not None:
        return usable_port(port)
    try:
        return usable_port(settings().port)
    except UpError:
        return usable_port(0)


def _described(service: Sweetspot) -> str:
    return next(str(preset["description"]) for preset in service.catalog("presets") if preset["name"] == PRESET)


def _print_curve(curve: Json, console: Console) -> None:
    for task, verdict in curve["verdicts"].items():
        console.print(tables.curve(curve, task))
        console.print(f"{task}: {verdict['words']}", style="bold", highlight=False, soft_wrap=True)
        lines = verdict["two_lines"]
        told = [
            f"p = {lines[name]:.2g} on the side of {side} information"
            for name, side in (("p_left", "less"), ("p_right", "more"))
            if lines[name] is not None
        ]
        if told:
            console.print(f"Two-lines test: {', '.join(told)}.", highlight=False, soft_wrap=True)


def _write(service: Sweetspot, sweep: Json, curve: Json) -> None:
    from app import figure  # noqa: PLC0415 (slow to load, and needed only at the end)

    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "curve.json").write_text(json.dumps(curve, indent=2))
    for form in ("svg", "png", "csv"):
        (FOLDER / f"curve.{form}").write_bytes(service.curve(sweep["id"], form))
    name = curve["axis"]["path"].rpartition(".")[2]
    rows = [(_caption(name, point), service.views(point["experiments"][0])) for point in curve["points"] if point["experiments"]]
    (FOLDER / "views.png").write_bytes(figure.render(figure.views_picture(rows), "png"))


def _caption(name: str, point: Json) -> str:
    nats = round(point["i_nce"], 2) + 0.0  # no -0.00
    return f"{name} = {point['label']}, I_NCE {'≥ ' if point['saturated'] else ''}{nats:.2f} nats"


def _farewell(url: str, id: str, folder: Path, keep: bool) -> str:
    if keep:
        return f"The service stays up at {url} (open it in a browser). `kill $(cat {runtime.lock_path(folder)})` ends it."
    return (
        f"`sweetspot up` serves these results again, and `sweetspot demo --keep` leaves the service up to look around:\n"
        f"then open {url}, or ask for the curve with `sweetspot curve {id} -o curve.svg`."
    )
