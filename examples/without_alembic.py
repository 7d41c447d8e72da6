"""The engine from Python, without Alembic: a rename, there and back.

    MIGRATOR_DATABASE_URL=postgresql://… python examples/without_alembic.py

Makes the table `example_users`, renames a column of it and removes it again.
"""

import os

import psycopg

from migrator.change import Change
from migrator.patterns import RenameColumn
from migrator.postgres.connection import Target
from migrator.runner import Runner

URL = os.environ["MIGRATOR_DATABASE_URL"]

with psycopg.connect(URL, autocommit=True) as conn:
    conn.execute("CREATE TABLE example_users (id int PRIMARY KEY, name text)")
    conn.execute(
        "INSERT INTO example_users SELECT g, 'user ' || g FROM generate_series(1, 9) g"
    )

    runner = Runner(Target.from_url(URL))
    change = Change(
        revision="example", pattern=RenameColumn("example_users", "name", "full_name")
    )
    print("plan:", runner.plan(change).title)
    print("expand:", runner.expand(change))
    print("backfill:", runner.backfill(change.id))
    print("verify:", runner.verify(change.id))

    # Both names work now, and each write to one is a write to the other.
    conn.execute("UPDATE example_users SET full_name = 'new' WHERE id = 1")
    print(
        "by the old name:",
        conn.execute("SELECT name FROM example_users WHERE id = 1").fetchone(),
    )

    print("contract:", runner.retire(change.id, old_release_gone="it is an example"))
    print("rollback:", runner.rollback(change.id))
    print("rollback:", runner.rollback(change.id))
    conn.execute("DROP TABLE example_users")
