"""How many examples were drawn, where not all were measured."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("run", sa.Column("sample", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("run", "sample")
