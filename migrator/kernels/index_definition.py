"""What an index is declared with: its keys, and all that follows them."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from typing import Any

from psycopg import sql

from migrator import names
from migrator.errors import Misdeclared, Refused
from migrator.facts import Facts, Index
from migrator.kernels import indexes, reading, requirements, trials
from migrator.pattern import Pattern
from migrator.plan import Probe, State, expression, render, type_name

ORDERS = ("", "asc", "desc")
NULLS = ("", "first", "last")


@dataclass(frozen=True, slots=True)
class Key:
    """
    One key of an index that is more than a column's name.

    Args:
        column: the column's name; an expression has none.
        expression: SQL expression over the row, in a column's place.
        collation: the collation, as SQL.
        operators: the operator class, as SQL; its parameters stand with it.
        order: "asc" or "desc".
        nulls: "first" or "last".
    """

    column: str = ""
    _: KW_ONLY
    expression: str = ""
    collation: str = ""
    operators: str = ""
    order: str = ""
    nulls: str = ""

    def render(self) -> sql.Composable:
        """Return the key as DDL spells it."""
        what = expression(self.expression) if self.expression else None
        text: sql.Composable = what or sql.Identifier(self.column)
        if self.collation:
            text += sql.SQL(" COLLATE ") + type_name(self.collation)
        if self.operators:
            text += sql.SQL(" ") + type_name(self.operators)
        if self.order:
            text += sql.SQL(" DESC" if self.order.lower() == "desc" else " ASC")
        if self.nulls:
            text += sql.SQL(
                " NULLS FIRST" if self.nulls.lower() == "first" else " NULLS LAST"
            )
        return text


Keys = Sequence[str | Key]


def from_data(on: Keys) -> Keys:
    """Return keys as the declaration takes them, those of the ledger as well."""
    if isinstance(on, str):
        return on
    return [k if isinstance(k, str | Key) else Key(**k) for k in on]


def as_data(on: Keys) -> Any:
    """Return keys as plain data."""
    if isinstance(on, str):
        return on
    return [asdict(k) if isinstance(k, Key) else k for k in on]


def require_partition_key(title: str, facts: Facts, keys: Sequence[str]) -> None:
    """
    Refuse to hold unique what no single partition knows.

    Args:
        title: the change's, for the message.
        facts: of a partitioned table.
        keys: the columns that are held unique.

    Source: PostgreSQL manual, section 5.12.2.3.
    """
    for column in facts.table.columns:
        if column.partition_key and column.name not in keys:
            raise Refused(
                f'{title}: column "{column.name}" decides on the partition of a row,'
                " and is no key of the index: each partition would know its own rows"
                " only.",
                next="add it to the keys.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """
    All of an index but its name and its table.

    Args:
        title: the change's, for messages.
        on: the keys, in order.
        unique: whether it is unique.
        include: further columns.
        nulls_not_distinct: whether NULL is a value like others.
        where: SQL predicate of a partial index.
        method: the access method.
        storage: storage parameters and their values.
        tablespace: where it is; None for that of the table's database.
    """

    title: str
    on: Keys
    unique: bool
    include: Sequence[str]
    nulls_not_distinct: bool
    where: str | None
    method: str
    storage: Mapping[str, str | int]
    tablespace: str | None = None

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys, each in its long form."""
        return tuple(Key(k) if isinstance(k, str) else k for k in self.on)

    def render(self) -> sql.Composable:
        """Return what DDL says behind the table's name."""
        return indexes.definition(
            method=self.method,
            keys=sql.SQL(", ").join(key.render() for key in self.keys),
            include=self.include,
            nulls_not_distinct=self.nulls_not_distinct,
            storage=self.storage,
            tablespace=self.tablespace,
            where=self.where,
        )

    def texts(self) -> tuple[str, ...]:
        """Return its expressions, and its predicate."""
        keys = (k.expression for k in self.on if isinstance(k, Key))
        return tuple(filter(None, (*keys, self.where)))

    def columns(self, table: str) -> frozenset[str] | None:
        """
        Return what it is on, and words of its expressions.

        Args:
            table: its table's name; an expression may read the whole row: then None.
        """
        read = names.read_by(table, *self.texts())
        if read is None:
            return None
        named = (k.column for k in self.keys if not k.expression)
        return frozenset((*named, *self.include, *read))

    def check(self, facts: Facts) -> None:
        """
        Refuse keys that are none, and columns that are not there.

        Raises:
            Refused: the declaration says nothing that could be built.
        """
        if not self.on or isinstance(self.on, str):
            raise Misdeclared(
                f"{self.title}: `on` must be a list of one column or more.",
                next='write on=["column"].',
            )
        if isinstance(self.include, str):
            raise Misdeclared(
                f"{self.title}: `include` must be a list of columns.",
                next='write include=["column"].',
            )
        for key in self.keys:
            self._check(key)
        for column in (*(k.column for k in self.keys if k.column), *self.include):
            if "(" in column and facts.table.column(column) is None:
                raise Misdeclared(
                    f'Table {facts.table.name} has no column "{column}".',
                    next=f"write an expression as Key(expression={column!r}).",
                )
            requirements.require_stored(facts, column)
        if facts.table.kind == "p" and self.unique:
            require_partition_key(self.title, facts, [k.column for k in self.keys])

    def _check(self, key: Key) -> None:
        if bool(key.column) == bool(key.expression):
            raise Misdeclared(
                f"{self.title}: a key is either a column or an expression.",
                next='write "column", Key("column", …) or Key(expression="…", …).',
            )
        for name, value, known in (
            ("order", key.order, ORDERS),
            ("nulls", key.nulls, NULLS),
        ):
            if str(value).lower() not in known:
                raise Misdeclared(
                    f"{self.title}: {name} is {value!r}.",
                    next=f'write "{known[1]}" or "{known[2]}".',
                )

    def probe(self, facts: Facts) -> Probe:
        """
        Return a trial of the same index on a table of that shape, and some rows.

        What is unique is unique of no rows: who has the same key is counted elsewhere.
        """
        # Bears the table's own name, which the predicate may use.
        name = facts.table.name.name
        trial = sql.Identifier("pg_temp", name)
        held = replace(self, unique=False, nulls_not_distinct=False)
        # In the copy that takes rows, what is generated is a plain column.
        generated = (
            sql.SQL("CREATE TEMP TABLE {} (LIKE {} INCLUDING GENERATED)").format(
                sql.Identifier(name), facts.table.name.identifier
            ),
            sql.SQL("CREATE INDEX ON {} {}").format(trial, held.render()),
            sql.SQL("DROP TABLE {}").format(trial),
        )
        virtual = any(c.virtual for c in facts.table.columns) and bool(self.texts())
        statements = (
            *(generated if virtual else ()),
            sql.SQL("CREATE TEMP TABLE {} (LIKE {})").format(
                sql.Identifier(name), facts.table.name.identifier
            ),
            sql.SQL("CREATE {}INDEX migrator_trial ON {} {}").format(
                sql.SQL("UNIQUE " if self.unique else ""), trial, self.render()
            ),
            sql.SQL("DROP INDEX pg_temp.migrator_trial"),
            *trials.sample(facts, trial),
            sql.SQL("CREATE INDEX ON {} {}").format(trial, held.render()),
        )
        return Probe(
            statements=tuple(render(s) for s in statements),
            question="SELECT true",
            otherwise="",
        )

    @property
    def orders(self) -> bool:
        """Whether CLUSTER may put a table's rows in its order."""
        return self.where is None and self.method in ("btree", "gist")

    def keeps(self, old: Index) -> bool:
        """Tell whether what relies on a unique index can rely on it as well."""
        mine = {k.column for k in self.keys}
        return (
            self.unique
            and not self.texts()
            and old.plain
            and mine == {k.name for k in old.keys}
            and (self.nulls_not_distinct or not old.nulls_not_distinct)
        )


class IndexPattern(Pattern):
    """A pattern that declares an index, but for what it does with it."""

    __slots__ = ()

    on: Keys
    unique: bool
    where: str | None
    method: str
    include: Sequence[str]
    nulls_not_distinct: bool
    storage: Mapping[str, str | int]

    def __post_init__(self) -> None:
        """Take keys back that come from the ledger."""
        object.__setattr__(self, "on", from_data(self.on))

    @property
    def admission(self) -> State:
        """From expanded: queries use whichever index there is."""
        return State.EXPANDED

    @property
    def definition(self) -> Definition:
        """All of the index but its name and its table."""
        return Definition(
            title=self.title,
            on=self.on,
            unique=self.unique,
            include=self.include,
            nulls_not_distinct=self.nulls_not_distinct,
            where=self.where,
            method=self.method,
            storage=self.storage,
        )

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question which functions whoever writes a row has to call."""
        return reading.asked(facts, *self.definition.texts(), by_name=False)

    def parameters(self) -> dict[str, Any]:
        """Return the declaration as plain data."""
        return {**Pattern.parameters(self), "on": as_data(self.on)}
