"""
A trigger that comes or goes keeps writers out, or everybody, until it has its lock.

Source: PostgreSQL manual, CREATE TRIGGER and ALTER TABLE (SHARE ROW EXCLUSIVE), DROP
TRIGGER (ACCESS EXCLUSIVE).
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint import text
from migrator.lint.locks import lock_of
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.pattern import OPEN
from migrator.patterns import Custom, Sql
from migrator.plan import Lock

_FUNCTION = (
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
)
_TRIGGER = "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"

_OPPOSITE = {
    "ENABLE": "DISABLE",
    "DISABLE": "ENABLE",
    "FORCE": "NO FORCE",
    "NO FORCE": "FORCE",
}


class ChangeTrigger(Rule):
    """A trigger that comes, goes, or is enabled or disabled."""

    code = "ZD430"
    title = "A trigger that comes or goes waits for a lock that requests wait behind"
    harm = Harm.STALL
    lock = Lock.SHARE_ROW_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=(_FUNCTION,),
            bad=(_TRIGGER,),
            good=(_FUNCTION.replace("CREATE", "CREATE OR REPLACE"),),
        ),
        Trial(
            before=(_FUNCTION, _TRIGGER),
            bad=("ALTER TABLE t DISABLE TRIGGER g",),
            good=(_FUNCTION.replace("CREATE", "CREATE OR REPLACE"),),
        ),
        Trial(
            before=(_FUNCTION, _TRIGGER),
            bad=("DROP TRIGGER g ON t",),
            good=(_FUNCTION.replace("CREATE", "CREATE OR REPLACE"),),
            lock=Lock.ACCESS_EXCLUSIVE,
        ),
        Trial(
            before=(_FUNCTION, _TRIGGER),
            bad=("ALTER TRIGGER g ON t RENAME TO h",),
            good=(_FUNCTION.replace("CREATE", "CREATE OR REPLACE"),),
            lock=Lock.ACCESS_EXCLUSIVE,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one on a table that was there before the revision."""
        if not isinstance(statement, st.ChangeTrigger):
            return
        table, how, name = statement.table, statement.how, statement.name
        lock = max(lock_of(statement).values(), key=lambda lock: lock.rank)
        yield from self.found(
            table,
            scene,
            f"{how} TRIGGER {name} takes {lock} on {table}.",
            "It is held for a moment, but whoever writes the table waits behind it"
            " until every transaction that has written to it ends. What the trigger"
            " does, it does to the release in use as well.",
            safe=carried(statement, lock),
            lock=lock,
        )


def carried(statement: st.ChangeTrigger | st.ChangePolicy, lock: Lock) -> Safe:
    """Return the statement as it stands, carried by the toolkit."""
    how, table = statement.how, statement.table
    reverse, back = _reverse(statement)
    given = Sql(
        statement.sql or OPEN,
        reverse=reverse,
        lock=lock.value,
    )
    comes = how.startswith("CREATE")
    asked = ["how it is taken back (`reverse`)"] if back else []
    if not comes:
        asked.append("whether the release in use has to be gone: then `at_retire`")
    return Safe(
        why="It runs with a short lock timeout and is tried again, so that nobody waits"
        " longer than that.",
        patterns=(
            Custom(
                table.name,
                _name(statement),
                at_expand=(given,) if comes else (),
                at_retire=() if comes else (given,),
                schema=table.schema,
            ),
        ),
        decide=", and ".join(asked),
    )


def _name(statement: st.ChangeTrigger | st.ChangePolicy) -> str:
    how = statement.how.lower()
    if isinstance(statement, st.ChangeTrigger):
        return f"{how} trigger {statement.name}"
    return f"{how} {statement.name or 'row security'}"


def _reverse(statement: st.ChangeTrigger | st.ChangePolicy) -> tuple[str, bool]:
    """Return the way back, and whether a person has to write it."""
    how, table = statement.how, text.name(statement.table)
    kind = "TRIGGER" if isinstance(statement, st.ChangeTrigger) else "POLICY"
    what = f"{kind} {text.name(statement.name)}" if statement.name else ""
    if how.startswith("CREATE"):
        return f"DROP {what} ON {table}", False
    if kind == "POLICY" and not what:
        what = "ROW LEVEL SECURITY"
    opposite = _OPPOSITE.get(how)
    if opposite is None:
        return OPEN, True
    return f"ALTER TABLE {table} {opposite} {what}", False
