"""`python -m migrations`: bring the database to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config


def config() -> Config:
    """Alembic's configuration of this folder."""
    return Config(Path(__file__).with_name("alembic.ini"))


if __name__ == "__main__":
    command.upgrade(config(), "head")
