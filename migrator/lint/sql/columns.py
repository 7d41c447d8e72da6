"""Columns and constraints, as CREATE TABLE and ALTER TABLE declare them."""

from dataclasses import dataclass, field, replace

from migrator.lint.sql.cursor import Cursor, UnreadError
from migrator.lint.statements import ForeignTo, NewColumn, NewConstraint
from migrator.lint.types import in_dialect

# What ends the type of a column.
_AFTER_TYPE = (
    "CONSTRAINT",
    "NOT",
    "NULL",
    "CHECK",
    "DEFAULT",
    "GENERATED",
    "UNIQUE",
    "PRIMARY",
    "REFERENCES",
    "COLLATE",
    "STORAGE",
    "COMPRESSION",
    "OPTIONS",
    "USING",
)
# What ends the default of a column.
_AFTER_DEFAULT = (
    "CONSTRAINT",
    "NOT NULL",
    "NULL",
    "CHECK (",
    "DEFAULT",
    "GENERATED",
    "UNIQUE",
    "PRIMARY KEY",
    "REFERENCES",
    "COLLATE",
)
_TABLE_CONSTRAINTS = (
    "CONSTRAINT",
    "CHECK (",
    "UNIQUE (",
    "UNIQUE NULLS",
    "UNIQUE USING INDEX",
    "PRIMARY KEY",
    "FOREIGN KEY",
    "EXCLUDE (",
    "EXCLUDE USING",
    "NOT NULL",
)
_ACTIONS = ("NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT")


def is_constraint(c: Cursor) -> bool:
    """Tell whether a constraint of a table follows, not a column."""
    return any(map(c.sees, _TABLE_CONSTRAINTS))


@dataclass(slots=True)
class _Options:
    """What may follow a constraint of any kind, in any order."""

    deferrable: bool = False
    deferred: bool = False
    not_valid: bool = False

    @property
    def when(self) -> str | None:
        """As `NewConstraint.deferrable` has it."""
        if not self.deferrable:
            return None
        return "deferred" if self.deferred else "immediate"


def _options(c: Cursor) -> _Options:
    found = _Options()
    while taken := c.take(
        "NOT DEFERRABLE",
        "DEFERRABLE",
        "INITIALLY DEFERRED",
        "INITIALLY IMMEDIATE",
        "NOT VALID",
        "NO INHERIT",
        "NOT ENFORCED",
        "ENFORCED",
    ):
        match taken:
            case "DEFERRABLE":
                found.deferrable = True
            case "INITIALLY DEFERRED":
                found.deferrable = found.deferred = True
            case "NOT VALID" | "NOT ENFORCED":
                # One that is not enforced is not proved either (18+).
                found.not_valid = True
            case _:
                pass
    return found


def _references(c: Cursor) -> ForeignTo:
    """Read what follows REFERENCES."""
    table = c.ref()
    columns: tuple[str, ...] = ()
    if c.sees("("):
        columns = _key(c)
    match, actions = None, {"DELETE": "", "UPDATE": ""}
    while taken := c.take("MATCH", "ON DELETE", "ON UPDATE"):
        if taken == "MATCH":
            match = c.name().upper()
            continue
        action = c.take(*_ACTIONS)
        if c.sees("("):
            action += f" ({', '.join(c.names())})"
        actions[taken.removeprefix("ON ")] = action
    return ForeignTo(
        table=table,
        columns=columns,
        on_delete=actions["DELETE"] or None,
        on_update=actions["UPDATE"] or None,
        match=match,
    )


def _key(c: Cursor) -> tuple[str, ...]:
    """Read the columns of a key; PERIOD and WITHOUT OVERLAPS (18+) go by."""
    found: list[str] = []
    for item in c.group().items():
        if item.sees("PERIOD") and item.ahead(1).value:
            item.take("PERIOD")
        found.append(item.name())
    return tuple(found)


def _storage(c: Cursor) -> None:
    """Go past what says where and how an index of a constraint is kept."""
    while taken := c.take("WITH", "USING INDEX TABLESPACE"):
        if taken == "WITH":
            c.group()
        else:
            c.name()


def constraint(c: Cursor, column: str | None = None) -> NewConstraint:
    """
    Read a constraint of a table, or one that is written within a column.

    Args:
        c: stands before it.
        column: the column within which it is written.

    Raises:
        UnreadError: it is none that is known.
    """
    name = c.name() if c.take("CONSTRAINT") else None
    own = () if column is None else (column,)
    found: NewConstraint
    match c.take(
        "CHECK",
        "UNIQUE",
        "PRIMARY KEY",
        "FOREIGN KEY",
        "REFERENCES",
        "EXCLUDE",
        "NOT NULL",
    ):
        case "CHECK":
            found = NewConstraint(
                kind="c", name=name, columns=own, expression=c.group().text()
            )
        case "UNIQUE" | "PRIMARY KEY" as word:
            found = _unique(c, "u" if word == "UNIQUE" else "p", name, own)
        case "FOREIGN KEY":
            columns = _key(c)
            c.expect("REFERENCES")
            found = NewConstraint(
                kind="f", name=name, columns=columns, to=_references(c)
            )
        case "REFERENCES":
            found = NewConstraint(kind="f", name=name, columns=own, to=_references(c))
        case "EXCLUDE":
            text = c.upto_words("DEFERRABLE", "NOT DEFERRABLE", "INITIALLY")
            found = NewConstraint(kind="x", name=name, definition=text)
        case "NOT NULL":
            found = NewConstraint(kind="n", name=name, columns=own or (c.name(),))
        case _:
            raise UnreadError
    options = _options(c)
    if found.to is not None:
        found = replace(found, to=replace(found.to, deferrable=options.when))
    return replace(found, deferrable=options.when, not_valid=options.not_valid)


def _unique(
    c: Cursor, kind: str, name: str | None, columns: tuple[str, ...]
) -> NewConstraint:
    distinct = not c.take("NULLS NOT DISTINCT")
    c.take("NULLS DISTINCT")
    index = None
    include: tuple[str, ...] = ()
    if not columns:
        if c.take("USING INDEX"):
            index = c.name()
        else:
            columns = _key(c)
    if c.take("INCLUDE"):
        include = c.names()
    _storage(c)
    return NewConstraint(
        kind=kind,
        name=name,
        columns=columns,
        using_index=index,
        nulls_not_distinct=not distinct,
        include=include,
    )


@dataclass(slots=True)
class _Column:
    """A column, as far as it is read."""

    not_null: bool = False
    default: str | None = None
    generated: str | None = None
    computed: str = ""
    identity: str | None = None
    collation: str | None = None
    constraints: list[NewConstraint] = field(default_factory=list[NewConstraint])


def column(c: Cursor, *, typed: bool = True) -> NewColumn:
    """
    Read a column with all that is said of it.

    Args:
        c: stands before its name.
        typed: whether a type follows; of a partition's columns none does.

    Raises:
        UnreadError: something in it is not known.
    """
    name = c.name()
    if not typed:
        c.take("WITH OPTIONS")
    type_ = in_dialect(c.upto_words(*_AFTER_TYPE)) if typed else ""
    if typed and not type_:
        raise UnreadError
    found = _Column()
    while not c.done:
        _part(c, name, found)
    return NewColumn(
        name=name,
        type=type_,
        not_null=found.not_null,
        default=found.default,
        generated=found.generated,
        computed=found.computed,
        identity=found.identity,
        collation=found.collation,
        constraints=tuple(found.constraints),
    )


def _part(c: Cursor, name: str, found: _Column) -> None:
    """Read one of the things that are said of a column."""
    before = c.at
    if c.take("CONSTRAINT"):
        c.name()
    match c.take(
        "NOT NULL",
        "NULL",
        "DEFAULT",
        "GENERATED ALWAYS AS (",
        "GENERATED",
        "COLLATE",
        "STORAGE",
        "COMPRESSION",
        "OPTIONS",
        "USING",
    ):
        case "NOT NULL":
            found.not_null = True
            c.take("NO INHERIT")
        case "NULL":
            pass
        case "DEFAULT":
            found.default = c.upto_words(*_AFTER_DEFAULT, least=1)
        case "GENERATED ALWAYS AS (":
            c.at -= 1
            found.computed = c.group().text()
            # Without a word it is virtual, which only 18 and later take.
            found.generated = (c.take("STORED", "VIRTUAL") or "VIRTUAL").lower()
        case "GENERATED":
            found.identity = (c.take("ALWAYS", "BY DEFAULT") or "ALWAYS").lower()
            c.expect("AS IDENTITY")
            if c.sees("("):
                c.group()
        case "COLLATE":
            found.collation = c.ref().name
        case "STORAGE" | "COMPRESSION" | "USING":
            c.name()
        case "OPTIONS":
            c.group()
        case _:
            c.at = before
            one = constraint(c, name)
            found.not_null |= one.kind == "p"
            found.constraints.append(one)
