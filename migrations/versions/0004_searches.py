"""sweeps that search for their values"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sweeps", sa.Column("search", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True))
    searching = sa.text("search IS NOT NULL AND (search ->> 'ended') IS NULL")
    op.create_index("ix_sweeps_searching", "sweeps", ["id"], postgresql_where=searching)


def downgrade() -> None:
    op.drop_index("ix_sweeps_searching", "sweeps")
    op.drop_column("sweeps", "search")
