"""Alembic's environment of the shop."""

import importlib
import os

from alembic import context
from sqlalchemy import create_engine, pool

from migrator import alembic as zd

# A project of yours has one models.py; here the releases lie side by side.
release = os.environ.get("SHOP_RELEASE", "v3")
metadata = importlib.import_module(f"{release}.models").Base.metadata

# pytest-alembic brings its own.
engine = context.config.attributes.get("connection") or create_engine(
    os.environ["DATABASE_URL"], poolclass=pool.NullPool
)

with engine.connect() as connection:
    context.configure(connection=connection, **zd.options(target_metadata=metadata))
    with context.begin_transaction():
        context.run_migrations()
