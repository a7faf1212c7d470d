"""estimates of the information of two arrays"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATES = "'queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled'"
INDEXES = {
    "claim": (["created_at"], sa.text("state = 'queued'")),
    "lease": (["lease_expires_at"], sa.text("lease_owner IS NOT NULL")),
    "sha256": (["sha256"], sa.text("state = 'succeeded'")),
}


def upgrade() -> None:
    op.create_table(
        "mi_estimates",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("results", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
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
            "(finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))", name=op.f("ck_mi_estimates_finished")
        ),
        sa.CheckConstraint(
            "(lease_owner IS NOT NULL) = (state IN ('running', 'cancelling'))", name=op.f("ck_mi_estimates_lease")
        ),
        sa.CheckConstraint(f"state IN ({STATES})", name=op.f("ck_mi_estimates_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mi_estimates")),
    )
    for name, (columns, where) in INDEXES.items():
        op.create_index(f"ix_mi_estimates_{name}", "mi_estimates", columns, unique=False, postgresql_where=where)


def downgrade() -> None:
    for name, (_, where) in INDEXES.items():
        op.drop_index(f"ix_mi_estimates_{name}", table_name="mi_estimates", postgresql_where=where)
    op.drop_table("mi_estimates")
