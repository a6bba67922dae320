"""Who owns a run, what holds a model, what each file was, and which home is whose."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "owner",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("boot", sa.Text(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_owner")),
    )
    op.create_table(
        "hold",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.id"], op.f("fk_hold_run"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "owner", name=op.f("pk_hold")),
    )
    op.create_table(
        "file",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.id"], op.f("fk_file_run"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "name", name=op.f("pk_file")),
    )
    about = op.create_table(
        "about",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_about")),
    )
    op.bulk_insert(about, [{"name": "identity", "value": uuid.uuid4().hex}])
    op.add_column("run", sa.Column("owner", sa.Text(), nullable=True))
    op.add_column("run", sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("weights", sa.Column("inode", sa.BigInteger(), nullable=True))
    # Not by a new table: dropping the old one would take all that refers to it along.
    op.drop_column("run", "heartbeat_at")
    op.drop_column("run", "process_started")
    # What several processes had begun side by side: the latest stands.
    op.execute(
        "UPDATE run SET status = 'interrupted', error = 'its process ended without a word' "
        "WHERE status = 'running' AND id < (SELECT MAX(twin.id) FROM run AS twin "
        "WHERE twin.status = 'running' AND twin.fingerprint = run.fingerprint)"
    )
    op.create_index(
        "uq_run_running",
        "run",
        ["fingerprint"],
        unique=True,
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    )
    op.execute(
        "DELETE FROM metric WHERE id > (SELECT MIN(twin.id) FROM metric AS twin "
        "WHERE twin.run = metric.run AND twin.split = metric.split AND twin.name = metric.name "
        "AND coalesce(twin.step, -1) = coalesce(metric.step, -1))"
    )
    op.create_index(
        "uq_metric_once",
        "metric",
        ["run", "split", "name", sa.text("coalesce(step, -1)")],
        unique=True,
    )


def downgrade() -> None:
    op.drop_index("uq_metric_once", table_name="metric")
    op.drop_index("uq_run_running", table_name="run")
    op.drop_column("weights", "inode")
    op.drop_column("run", "verified_at")
    op.drop_column("run", "owner")
    op.add_column("run", sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("run", sa.Column("process_started", sa.Double(), nullable=True))
    for name in ("about", "file", "hold", "owner"):
        op.drop_table(name)
