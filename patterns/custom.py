"""Your own SQL, as steps that are locked, recorded and taken back.

phase     statement    lock on the table
expand    yours        ACCESS EXCLUSIVE, unless declared weaker
retire    yours        ACCESS EXCLUSIVE, unless declared weaker
drop      yours        ACCESS EXCLUSIVE, unless declared weaker

Each statement is a transaction that takes the declared lock first, or stands alone
outside of one. What it must not do is what the phases are for: expand may not break
the old release, retire may not break the new one.

Source: PostgreSQL manual, section 13.3.1.
"""

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any, ClassVar

from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels import direct, requirements
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import (
    Action,
    Autocommit,
    Lock,
    Notice,
    Probe,
    State,
    Step,
    Steps,
    TableLock,
    Transaction,
)

# Strings, names in quotes, comments to the line's end, and where another one begins: in
# these no word is one of a statement.
_QUOTED = re.compile(
    r"""--[^\n]*|/\*|(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'"""
    r"""|"(?:[^"]|"")*"|(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$""",
    re.DOTALL,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
# What begins or ends a transaction; a savepoint does not. An SQL body ends by END too.
_CONTROL = re.compile(
    r"(?:\A|;)\s*(BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|PREPARE\s+TRANSACTION"
    r"|ROLLBACK(?!(?:\s+(?:WORK|TRANSACTION))?\s+TO\b))\b",
    re.IGNORECASE,
)
_BUILD = re.compile(r"\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\b", re.IGNORECASE)
# What waits with nobody behind it; DETACH PARTITION CONCURRENTLY is not of that kind.
_INDEX = re.compile(
    r"\s*(?:CREATE\s+(?:UNIQUE\s+)?INDEX|DROP\s+INDEX|REINDEX)\b.*\bCONCURRENTLY\b",
    re.IGNORECASE | re.DOTALL,
)
_VALID = "indisvalid"
_BODY = re.compile(r"\bBEGIN\s+ATOMIC\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sql:
    """
    One statement with its way back.

    Args:
        statement: what runs.
        reverse: what takes it back.
        no_reverse: why nothing has to, or nothing can.
        lock: the strongest lock that either takes on the table, "none" for none.
        done: query with one boolean: true where its effect is there. One that stands
            alone needs it, since its record cannot commit with it.
        alone: outside a transaction, as CONCURRENTLY asks for.
    """

    statement: str
    _: KW_ONLY
    reverse: str = ""
    no_reverse: str = ""
    lock: str = Lock.ACCESS_EXCLUSIVE.value
    done: str = ""
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Custom(Pattern):
    """
    Run your own statements on `table`, in phases.

    Example:
        change = Custom(
            "orders",
            "count_orders",
            at_expand=[
                Sql(
                    "CREATE TRIGGER count_orders AFTER INSERT ON orders"
                    " FOR EACH ROW EXECUTE FUNCTION count_orders()",
                    reverse="DROP TRIGGER count_orders ON orders",
                )
            ],
        )

    Args:
        table: the table that is locked, without its schema.
        name: short, for titles and steps.
        at_expand: statements that neither release notices.
        at_retire: statements once no old release is left.
        at_drop: statements after the hold.
        touches: columns that no other change may touch meanwhile; None for all.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    reversible: ClassVar[str] = "as declared"

    table: str
    name: str
    _: KW_ONLY
    at_expand: Sequence[Sql] = ()
    at_retire: Sequence[Sql] = ()
    at_drop: Sequence[Sql] = ()
    touches: Sequence[str] | None = None
    schema: str | None = None
    assured: str = ""

    def __post_init__(self) -> None:
        """Take statements as they come back from the ledger: as plain data."""
        for field in ("at_expand", "at_retire", "at_drop"):
            given: Sequence[Any] = getattr(self, field)
            taken = tuple(s if isinstance(s, Sql) else Sql(**s) for s in given)
            object.__setattr__(self, field, taken)

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'run "{self.name}" on table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded, which makes what it needs."""
        return State.EXPANDED

    @property
    def ends_at_expand(self) -> bool:
        """Where no statement comes later."""
        return not (self.at_retire or self.at_drop)

    def columns(self) -> frozenset[str] | None:
        """Return what is touched, as far as it was said."""
        return None if self.touches is None else frozenset(self.touches)

    def parameters(self) -> dict[str, Any]:
        """Return the declaration as plain data."""
        return {
            **Pattern.parameters(self),
            "at_expand": [asdict(s) for s in self.at_expand],
            "at_retire": [asdict(s) for s in self.at_retire],
            "at_drop": [asdict(s) for s in self.at_drop],
        }

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a statement that does not say all that its step needs."""
        requirements.require_table(facts)
        given = (*self.at_expand, *self.at_retire, *self.at_drop)
        if not given:
            raise Refused(f"{self.title}: there is no statement.", next="give one.")
        for one in given:
            self._check(one)
        text = "The statements are yours: nothing but their `done` was tried out."
        return (Notice(text=text),)

    def _check(self, one: Sql) -> None:
        what = f"{self.title}: the statement {one.statement!r}"
        if one.lock not in list(Lock):
            raise Refused(
                f"{what} names a lock that there is not, {one.lock!r}.",
                next=f"take one of these: {', '.join(Lock)}.",
            )
        if bool(one.reverse) == bool(one.no_reverse):
            raise Refused(
                f"{what} needs a reverse, or a reason why it has none.",
                next='write reverse="…", or no_reverse="why".',
            )
        for text in (one.statement, one.reverse):
            if (word := _control(text)) is not None:
                raise Refused(
                    f"{self.title}: {text!r} says {word}. A step is a transaction with"
                    " its record, its locks and their timeouts: what stands behind"
                    " would be in none, wait for locks without end, and run twice"
                    " after a crash.",
                    next="leave it out; write one Sql for each transaction.",
                )
        if one.alone and not one.done:
            raise Refused(
                f"{what} stands alone, and does not tell whether it is done.",
                next='write done="SELECT EXISTS (…)".',
            )
        if _BUILD.search(_plain(one.statement)) and _VALID not in one.done:
            raise Refused(
                f"{what} builds an index: one that was cut off leaves an invalid index,"
                " which its `done` takes for a whole one.",
                next="use CreateIndex, which looks; or let `done` ask pg_index for"
                f" {_VALID}, and drop an invalid one by hand.",
            )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial that each `done` can be asked before its step."""
        return tuple(
            Probe(
                statements=(),
                question=f"SELECT ({one.done}) IS NOT NULL",
                otherwise=f"{self.title}: {one.done!r} answers NULL.",
                next="let it answer true or false, also before its step.",
                failed=f"{self.title}: {one.done!r} cannot be asked",
            )
            for one in (*self.at_expand, *self.at_retire, *self.at_drop)
            if one.done
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the statements of expand."""
        return self._steps(facts, self.at_expand, loses=False)

    def retire(self, facts: Facts) -> Steps:
        """Return the statements of retire."""
        return self._steps(facts, self.at_retire, loses=False)

    def drop(self, facts: Facts) -> Steps:
        """Return the statements of drop; one without a reverse loses something."""
        return self._steps(facts, self.at_drop, loses=True)

    def rebuild(self, facts: Facts) -> Steps:
        """Return nothing, where the drop can be rolled back."""
        if not any(step.loses for step in self.drop(facts)):
            return ()
        raise Refused(
            f"{self.title}: a statement of its drop has no reverse.",
            next="write a new change.",
        )

    def _steps(self, facts: Facts, given: Sequence[Sql], *, loses: bool) -> Steps:
        return tuple(
            Step(
                name=f"{self.name}_{number}",
                work=_action(facts.table.name, one, one.statement, one.done),
                reverse=(
                    # There was something to take back as long as it is done.
                    _action(
                        facts.table.name,
                        one,
                        one.reverse,
                        f"SELECT NOT ({one.done})" if one.done else "",
                    ),
                )
                if one.reverse
                else (),
                no_reverse=one.no_reverse,
                loses=loses and not one.reverse,
            )
            for number, one in enumerate(given, 1)
        )


def _plain(text: str) -> str:
    """Return a text without its comments, strings and names in quotes."""
    kept: list[str] = []
    at = 0
    while found := _QUOTED.search(text, at):
        kept.append(text[at : found.start()])
        at = found.end()
        # A comment may have others within.
        depth = int(found[0] == "/*")
        while depth:
            mark = _COMMENT_MARK.search(text, at)
            depth += 0 if mark is None else 1 if mark[0] == "/*" else -1
            if mark is None:
                return " ".join(kept)
            at = mark.end()
    return " ".join((*kept, text[at:]))


def _control(text: str) -> str | None:
    """Return the word of a text that begins or ends a transaction."""
    plain = _plain(text)
    if _BODY.search(plain):
        return None
    found = _CONTROL.search(plain)
    return None if found is None else found[1].upper()


def _action(table: TableName, one: Sql, statement: str, done: str) -> Action:
    lock = Lock(one.lock)
    if one.alone:
        builds = _INDEX.match(_plain(statement)) is not None
        # Of what it waits for the most is said: a DROP waits for readers too.
        waits = (TableLock(table=table, lock=Lock.ACCESS_EXCLUSIVE),) if builds else ()
        return Autocommit(
            statement=statement,
            lock=lock,
            table=table,
            done=done,
            outlives=waits,
            in_vain=True,
        )
    first = () if lock is Lock.NONE else (direct.locked(table, lock),)
    return Transaction(
        statements=(*first, statement), lock=lock, table=table, done=done or None
    )
