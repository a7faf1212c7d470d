"""keys, and what belongs to whom"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OWNED = ("experiments", "sweeps", "previews", "datasets", "mi_estimates")
SUBMITTED = {
    "experiments": (["key_id", "state"], sa.text("finished_at IS NULL")),
    "sweeps": (["key_id"], None),
    "previews": (["key_id"], sa.text("finished_at IS NULL")),
    "datasets": (["key_id"], None),
    "mi_estimates": (["key_id"], sa.text("finished_at IS NULL")),
}


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("max_queued", sa.Integer(), nullable=True),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.Column("max_stored_bytes", sa.BigInteger(), nullable=True),
        sa.Column("per_minute", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_keys_hash")),
    )
    op.create_table(
        "sign_ins",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_sign_ins_key_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_sign_ins")),
    )
    op.create_index("ix_sign_ins_key_id", "sign_ins", ["key_id"], unique=False)
    op.create_table(
        "checkpoints",
        sa.Column("owner", sa.Text(), server_default="local", nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("owner", "id", name=op.f("pk_checkpoints")),
    )
    op.create_index("ix_checkpoints_id", "checkpoints", ["id"], unique=False)
    op.create_index("ix_checkpoints_key_id", "checkpoints", ["key_id"], unique=False)
    for table in OWNED:
        op.add_column(table, sa.Column("owner", sa.Text(), server_default="local", nullable=False))
        op.create_index(f"ix_{table}_owner_id", table, ["owner", "id"], unique=False)
    for table, (columns, where) in SUBMITTED.items():
        op.add_column(table, sa.Column("key_id", sa.Text(), nullable=True))
        op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns, unique=False, postgresql_where=where)
    op.add_column("idempotency_keys", sa.Column("owner", sa.Text(), server_default="local", nullable=False))
    op.drop_constraint("pk_idempotency_keys", "idempotency_keys")
    op.create_primary_key("pk_idempotency_keys", "idempotency_keys", ["owner", "key"])


def downgrade() -> None:
    op.execute("DELETE FROM idempotency_keys WHERE owner <> 'local'")
    op.drop_constraint("pk_idempotency_keys", "idempotency_keys")
    op.drop_column("idempotency_keys", "owner")
    op.create_primary_key("pk_idempotency_keys", "idempotency_keys", ["key"])
    for table, (columns, _) in SUBMITTED.items():
        op.drop_index(f"ix_{table}_{'_'.join(columns)}", table)
        op.drop_column(table, "key_id")
    for table in OWNED:
        op.drop_index(f"ix_{table}_owner_id", table)
        op.drop_column(table, "owner")
    op.drop_table("checkpoints")
    op.drop_table("sign_ins")
    op.drop_table("api_keys")
