"""The knobs of difficulty, the type of the weights, and how a run was measured."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TEXT = ("dtype", "book", "pairs", "protocol")
_INTEGER = ("options", "shots", "context_words", "mixture")


def upgrade() -> None:
    with op.batch_alter_table("run", schema=None) as batch_op:
        for name in _TEXT:
            batch_op.add_column(sa.Column(name, sa.Text(), nullable=True))
        for name in _INTEGER:
            batch_op.add_column(sa.Column(name, sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("run", schema=None) as batch_op:
        for name in (*_TEXT, *_INTEGER):
            batch_op.drop_column(name)
