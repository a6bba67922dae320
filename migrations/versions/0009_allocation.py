"""How much each tensor lost, where it is not all alike nor by competing."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("run", sa.Column("allocation", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("run", "allocation")
