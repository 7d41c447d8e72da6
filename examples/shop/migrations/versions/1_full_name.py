"""A user has a full name."""

from migrator import alembic as zd
from migrator.patterns import RenameColumn

revision, down_revision = "full_name", "tables"
change = RenameColumn("users", "name", "full_name")


def upgrade() -> None:
    zd.upgrade(change)


def downgrade() -> None:
    zd.downgrade(change)
