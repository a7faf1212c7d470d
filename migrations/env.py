"""What Alembic runs: migrations over one connection, one migrator at a time."""

from alembic import context
from sqlalchemy import create_engine, pool, text

from app.persistence.models import Base
from app.settings import settings

MIGRATION_LOCK = 7302451  # any number that nobody else locks


def run() -> None:
    engine = create_engine(settings().require_database_url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK})
        connection.commit()
        context.configure(connection=connection, target_metadata=Base.metadata, version_table="sweetspot_migrations")
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": MIGRATION_LOCK})
        connection.commit()


run()
