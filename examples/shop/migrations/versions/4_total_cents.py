"""An order comes to a number of cents."""

from migrator import alembic as zd
from migrator.patterns import TransformColumn

revision, down_revision = "total_cents", "orders_of_user"
change = TransformColumn(
    "orders",
    "total",
    "total_cents",
    "bigint",
    up="(total * 100)::bigint",
    down="total_cents / 100.0",
    old_type="numeric(10,2)",
)


def upgrade() -> None:
    zd.upgrade(change)


def downgrade() -> None:
    zd.downgrade(change)
