"""Each user has a mail address."""

from migrator import alembic as zd
from migrator.patterns import SetNotNull

revision, down_revision = "email", "full_name"
change = SetNotNull("users", "email", fill="id || '@unknown.invalid'")


def upgrade() -> None:
    zd.upgrade(change)


def downgrade() -> None:
    zd.downgrade(change)
