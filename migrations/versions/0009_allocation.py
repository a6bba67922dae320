"""How much each tensor lost; what a scan measured; what trained in place of the weights."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("run", sa.Column("allocation", sa.Text(), nullable=True))
    op.add_column("run", sa.Column("adapter", sa.Text(), nullable=True))
    op.create_table(
        "sensitivity",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("block", sa.Text(), nullable=False),
        sa.Column("matrix", sa.Text(), nullable=False),
        sa.Column("sparsity", sa.Double(), nullable=False),
        sa.Column("tensors", sa.JSON(), nullable=False),
        sa.Column("weights", sa.BigInteger(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.id"], name="fk_sensitivity_run", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "block", "matrix", "sparsity", name="pk_sensitivity"),
    )


def downgrade() -> None:
    op.drop_table("sensitivity")
    op.drop_column("run", "adapter")
    op.drop_column("run", "allocation")
