"""
Changes inside ordinary Alembic revisions.

In `env.py`::

    from migrator import alembic as zd
    context.configure(connection=connection, **zd.options(target_metadata=metadata))

In a revision::

    change = RenameColumn("users", "name", "full_name")

    def upgrade():
        zd.upgrade(change)

    def downgrade():
        zd.downgrade(change)
"""

from migrator.alembic.environment import options
from migrator.alembic.revision import assured, downgrade, undecided, upgrade

__all__ = ["assured", "downgrade", "options", "undecided", "upgrade"]
