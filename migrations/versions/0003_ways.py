"""Ways to take weights away besides magnitude: what they rest on, and what training makes of it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TEXT = ("calibration", "schedule", "quantization", "teacher", "remark")


def upgrade() -> None:
    with op.batch_alter_table("run", schema=None) as batch_op:
        for name in _TEXT:
            batch_op.add_column(sa.Column(name, sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("pruning_seed", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("bits_per_weight", sa.Double(), nullable=True))
    op.create_table(
        "dynamics",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("tensor", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("moved_small", sa.Double(), nullable=True),
        sa.Column("moved_large", sa.Double(), nullable=True),
        sa.Column("regrown", sa.Double(), nullable=True),
        sa.Column("regrown_size", sa.Double(), nullable=True),
        sa.Column("flips", sa.Double(), nullable=False),
        sa.Column("overlap", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run"], ["run.id"], name=op.f("fk_dynamics_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run", "tensor", "step", name=op.f("pk_dynamics")),
    )


def downgrade() -> None:
    op.drop_table("dynamics")
    with op.batch_alter_table("run", schema=None) as batch_op:
        for name in (*_TEXT, "pruning_seed", "bits_per_weight"):
            batch_op.drop_column(name)
