"""Each order is of a user who exists."""

from migrator import alembic as zd
from migrator.patterns import AddForeignKey

revision, down_revision = "user_exists", "total_cents"
change = AddForeignKey("orders", ["user_id"], "users", ["id"], "orders_user_id_fkey")


def upgrade() -> None:
    zd.upgrade(change)


def downgrade() -> None:
    zd.downgrade(change)
