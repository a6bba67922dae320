"""Under which rule a run was measured: those of before are never mixed with new ones."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rule", sa.BigInteger(), nullable=True))
    op.execute("UPDATE run SET rule = 1 WHERE kind <> 'prune'")


def downgrade() -> None:
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.drop_column("rule")
