"""Changes on what is no table, by the command line and in an Alembic project."""

import json

import psycopg
from quick import Quick
from test_alembic import project

__all__ = ["project"]

FIRST = """
from alembic import op

revision, down_revision = "r1", None


def upgrade():
    op.execute("CREATE TABLE orders (id int PRIMARY KEY, total int)")
    op.execute("CREATE VIEW sales AS SELECT id FROM orders")
    op.execute("CREATE MATERIALIZED VIEW sums AS SELECT id, total FROM orders")
    op.execute("CREATE UNIQUE INDEX sums_id ON sums (id)")
    op.execute("CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'")


def downgrade():
    op.execute("DROP FUNCTION f(int)")
    op.execute("DROP TABLE orders CASCADE")
"""
SECOND = """
from migrator import alembic as zd
from migrator.patterns import (
    RefreshMaterializedView,
    ReplaceFunction,
    ReplaceView,
    SetParameter,
)

revision, down_revision = "r2", "r1"
view = ReplaceView("sales", "SELECT id, total FROM orders")
other = ReplaceView(
    "sales", "SELECT total FROM orders", new_name="totals", assured="test"
)
function = ReplaceFunction(
    "f(int)", "CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 2'"
)
setting = SetParameter("work_mem", "7MB")
refresh = RefreshMaterializedView("sums")
CHANGES = (view, other, function, setting, refresh)


def upgrade():
    for change in CHANGES:
        zd.upgrade(change)


def downgrade():
    for change in reversed(CHANGES):
        zd.downgrade(change)
"""
STATE = """
SELECT pg_get_viewdef(to_regclass('sales')), pg_get_viewdef(to_regclass('totals')),
       f(1), (SELECT setconfig::text FROM pg_db_role_setting JOIN pg_database d
               ON d.oid = setdatabase WHERE datname = current_database())
"""


def state(project: Quick) -> tuple[object, ...]:
    """Return what the changes change."""
    with psycopg.connect(project.url) as conn:
        row = conn.execute(STATE.encode()).fetchone()
    assert row is not None
    return row


def test_plan_status_and_log(project: Quick) -> None:
    """Each is called what it is, and none has rows or a lock that it has not."""
    project.write("r1", FIRST)
    project.run("upgrade", "head")
    project.write("r2", SECOND)
    name = project.url.rpartition("/")[2].partition("?")[0]
    wanted = {
        "r2": 'View "public"."sales".',
        "r2:3": 'Function "public".f(integer).',
        "r2:4": f'Setting work_mem of DATABASE "{name}".',
        "r2:5": 'View "public"."sums", about 0 rows, ',
    }
    for change, text in wanted.items():
        told = project.migrator("plan", change).stdout
        assert told.split("\n")[1].startswith(text), told
        assert "None" not in told
        data = json.loads(project.migrator("plan", change, "--json").stdout)
        (plan,) = data.get("plans", [data])
        assert plan["kind"] in text.lower()
    told = project.migrator("plan", "r2:3").stdout
    assert "    lock        none\n" in told
    project.migrator("expand", "r2:3")
    project.migrator("expand", "r2:4")
    assert "r2:3" in project.migrator("status").stdout
    assert "set work_mem to '7MB' of this database" in project.migrator("log").stdout
    project.migrator("rollback", "r2:4")
    project.migrator("rollback", "r2:3")


def test_there_and_back_in_an_alembic_project(project: Quick) -> None:
    """Where nothing was before, all phases are gone through; downgrade finds back."""
    project.write("r1", FIRST)
    project.write("r2", SECOND)
    project.run("upgrade", "head")
    assert state(project) == (
        None,
        " SELECT total\n   FROM orders;",
        2,
        "{work_mem=7MB}",
    )
    project.run("downgrade", "r1")
    assert state(project) == (" SELECT id\n   FROM orders;", None, 1, None)
