"""The orders of a user are found by an index."""

from migrator import alembic as zd
from migrator.patterns import CreateIndex

revision, down_revision = "orders_of_user", "email"
change = CreateIndex("orders", ["user_id"], "ix_orders_user_id")


def upgrade() -> None:
    zd.upgrade(change)


def downgrade() -> None:
    zd.downgrade(change)
