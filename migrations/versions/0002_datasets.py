"""datasets, and what waits for them"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATES = "'queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled'"
CLAIMS = {"experiments": ["queue", sa.literal_column("priority DESC"), "created_at"], "previews": ["created_at"]}
QUEUED = sa.text("state = 'queued'")
CLAIMABLE = sa.text("state = 'queued' AND waits_for IS NULL")


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("layout", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("facts", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("same_as", sa.Text(), nullable=True),
        sa.Column("progress", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))", name=op.f("ck_datasets_finished")
        ),
        sa.CheckConstraint("(lease_owner IS NOT NULL) = (state IN ('running', 'cancelling'))", name=op.f("ck_datasets_lease")),
        sa.CheckConstraint(f"state IN ({STATES})", name=op.f("ck_datasets_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
    )
    op.create_index("ix_datasets_claim", "datasets", ["created_at"], unique=False, postgresql_where=QUEUED)
    op.create_index(
        "ix_datasets_lease", "datasets", ["lease_expires_at"], unique=False, postgresql_where=sa.text("lease_owner IS NOT NULL")
    )
    op.create_index("ix_datasets_sha256", "datasets", ["sha256"], unique=False)
    for table, columns in CLAIMS.items():
        op.add_column(table, sa.Column("waits_for", sa.Text(), nullable=True))
        op.create_index(f"ix_{table}_waits_for", table, ["waits_for"], unique=False, postgresql_where=QUEUED)
        op.drop_index(f"ix_{table}_claim", table_name=table, postgresql_where=QUEUED)
        op.create_index(f"ix_{table}_claim", table, columns, unique=False, postgresql_where=CLAIMABLE)


def downgrade() -> None:
    for table, columns in CLAIMS.items():
        op.drop_index(f"ix_{table}_claim", table_name=table, postgresql_where=CLAIMABLE)
        op.create_index(f"ix_{table}_claim", table, columns, unique=False, postgresql_where=QUEUED)
        op.drop_index(f"ix_{table}_waits_for", table_name=table, postgresql_where=QUEUED)
        op.drop_column(table, "waits_for")
    op.drop_index("ix_datasets_sha256", table_name="datasets")
    op.drop_index("ix_datasets_lease", table_name="datasets", postgresql_where=sa.text("lease_owner IS NOT NULL"))
    op.drop_index("ix_datasets_claim", table_name="datasets", postgresql_where=QUEUED)
    op.drop_table("datasets")
