"""`python -m workers --name NAME`: one worker, for one device: a Celery process that supervises and a runner that trains."""

import argparse
import os
import socket
import warnings

from app.logs import configure_logs


def main() -> None:
    """Run until SIGTERM, which drains: the experiment at hand goes back to the queue."""
    parser = argparse.ArgumentParser(prog="python -m workers")
    parser.add_argument("--name", default="worker", help="its name, unique on this machine")
    arguments = parser.parse_args()
    name = f"{arguments.name}@{socket.gethostname()}"
    os.environ["SWEETSPOT_WORKER"] = name
    configure_logs()
    from celery.platforms import SecurityWarning  # noqa: PLC0415

    from workers.doorbell import app  # noqa: PLC0415 - reads the settings, and those the lines above

    quietly = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    pool = ["--pool", "prefork", "--concurrency", "1", "--queues", "default", "--hostname", name]
    warnings.filterwarnings("ignore", category=SecurityWarning)  # of being root: bells carry no pickles
    app.worker_main(["--quiet", "worker", *pool, *quietly])


if __name__ == "__main__":
    main()
