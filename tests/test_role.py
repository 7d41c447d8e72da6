"""A role that may not do all of a change is told before anything is changed."""

import psycopg
import pytest
from test_claims import ROLE, as_role

from migrator.change import Change
from migrator.errors import Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    AddCheck,
    CreateIndex,
    DropConstraint,
    MergeColumns,
    RenameColumn,
    ReplaceView,
    SetParameter,
    SplitTable,
)
from migrator.plan import State
from migrator.postgres.connection import Target
from migrator.runner import Runner
from migrator.settings import Settings

SETUP = f"""
DO $$ BEGIN
  IF to_regrole('{ROLE}') IS NULL THEN CREATE ROLE {ROLE} LOGIN; END IF;
END $$;
CREATE TABLE t (id int PRIMARY KEY, a text, b text, n int CONSTRAINT one UNIQUE);
CREATE INDEX t_a ON t (a);
CREATE VIEW v AS SELECT id FROM t;
ALTER TABLE t OWNER TO {ROLE};
ALTER VIEW v OWNER TO {ROLE};
"""
MAKING: tuple[Pattern, ...] = (
    # At expand, in the backfill, at retire, and on the way back.
    CreateIndex("t", ["n"], "t_n"),
    SplitTable("t", "s", ["b"], key=["id"], assured="tried"),
    ReplaceView("v", "SELECT id, 1 AS one FROM t"),
    RenameColumn("t", "a", "x"),
    MergeColumns("t", ["a", "b"], "x", "text", "a || b", back={"a": "x", "b": "x"}),
    DropConstraint("t", "one", assured="tried"),
)


def test_what_a_role_may_not(database: str, sql: psycopg.Connection) -> None:
    """The schema's, or the database's, privilege is named, and what needs none runs."""
    sql.execute(SETUP.encode())
    runner = Runner(Target.from_url(as_role(database)), Settings(hold_s=0))
    change = Change(revision="check", pattern=AddCheck("t", "fine", "n > 0"))
    with pytest.raises(Refused) as caught:
        runner.expand(change)
    assert str(caught.value) == (
        'The ledger is a schema "migrator" of the database, which this role may not'
        f" create.\nNothing was changed.\nNext: have CREATE SCHEMA migrator"
        f' AUTHORIZATION "{ROLE}" run once by the database\'s owner, or grant this role'
        " CREATE on the database."
    )
    sql.execute("CREATE SCHEMA migrator")
    with pytest.raises(Refused, match="may not create tables") as caught:
        runner.expand(change)
    assert caught.value.next == 'connect as the role that owns it, "postgres".'
    sql.execute(f"ALTER SCHEMA migrator OWNER TO {ROLE}".encode())
    for pattern in MAKING:
        for run in (runner.expand, runner.plan):
            with pytest.raises(Refused) as caught:
                run(Change(revision="no", pattern=pattern))
            assert str(caught.value) == (
                f'{pattern.title}: this role may not create in schema "public", which'
                " an index, a table or a new name there takes.\nNothing was changed."
                '\nNext: GRANT CREATE ON SCHEMA "public" to it, or connect as a role'
                " that has that."
            )
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="no", pattern=SetParameter("work_mem", "8MB")))
    assert caught.value.next == "grant the privilege, or connect as a role that has it."
    assert runner.changes() == []
    runner.expand(change)
    assert runner.settle("check") is State.VERIFIED
    sql.execute(f"REASSIGN OWNED BY {ROLE} TO CURRENT_USER".encode())
