"""Build an index anew, or all indexes of a table, without blocking reads or writes.

phase     statement                   lock on the table
expand    DROP INDEX CONCURRENTLY     SHARE UPDATE EXCLUSIVE, of what failed tries left
          REINDEX INDEX CONCURRENTLY  SHARE UPDATE EXCLUSIVE, two scans

The server builds a second index beside the first (`…_ccnew`), exchanges them, and
drops the first (`…_ccold`). One that was cut off leaves either behind, invalid, and
kept up to date by every write. An index that was built anew has another OID than when
the step was written, which tells after a crash that it is done.

Source: PostgreSQL manual, REINDEX, Rebuilding Indexes Concurrently.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts, Index, Table
from migrator.kernels import direct, indexes, requirements
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import Autocommit, Lock, Notice, State, Step, Steps, render

# What the server calls the second index and the first; a number follows where the
# name is taken.
NEW, OLD = "_ccnew", "_ccold"
MOST_LEFT = 10


@dataclass(frozen=True, slots=True)
class Reindex(Pattern):
    """
    Build the index `name` of `table` anew, or all of its indexes.

    Example:
        change = Reindex("users", "ix_users_email")

    Args:
        table: the table's name, without its schema.
        name: the index's name; None for all, one after another.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    reversible: ClassVar[str] = "nothing to take back"

    table: str
    name: str | None = None
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        which = "all indexes" if self.name is None else f'index "{self.name}"'
        return f'build {which} of table "{self.table}" anew'

    @property
    def admission(self) -> State:
        """From expanded: no release notices."""
        return State.EXPANDED

    def columns(self) -> frozenset[str] | None:
        """Return the index, None for all."""
        return None if self.name is None else frozenset({self.name})

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what PostgreSQL does not build anew concurrently."""
        requirements.require_table(facts)
        if self.name is not None:
            index = indexes.require(facts, self.name)
            if index.exclusion:
                raise Refused(
                    f'Index "{self.name}" of table {facts.table.name} is that of an'
                    " exclusion constraint: PostgreSQL does not build it anew"
                    " concurrently.",
                    next="REINDEX it in a maintenance window.",
                )
        found = list(self._indexes(facts))
        if not found:
            raise Refused(
                f"Table {facts.table.name} has no index that can be built anew.",
                next="correct the name.",
            )
        notices = [
            Notice(
                text=f"Indexes that are built anew, one after another: {len(found)}."
                " Each needs as much room again until it is done; a build that is cut"
                " off begins anew."
            )
        ]
        left_out = [
            f'"{i.name}"' for t in facts.table.leaves for i in t.indexes if i.exclusion
        ]
        if self.name is None and left_out:
            notices.append(
                Notice(
                    text="Left out, since PostgreSQL does not build those of exclusion"
                    f" constraints anew concurrently: {', '.join(left_out)}."
                )
            )
        return self.assure(tuple(notices))

    def expand(self, facts: Facts) -> Steps:
        """Return for each index the end of what failed tries left, and the build."""
        return tuple(
            step
            for table, index in self._indexes(facts)
            for step in (
                *(_gone(table, name) for name in _left(table, index)),
                _anew(table, index),
                _gone(table, names.fitted(index.name, OLD), "drop_old"),
            )
        )

    def _indexes(self, facts: Facts) -> Iterator[tuple[Table, Index]]:
        """Yield the indexes that hold entries, each with its table."""
        for table in facts.table.leaves:
            left = {name for i in table.indexes for name in _left(table, i)}
            for index in table.indexes:
                own = index.name if table.root is None else index.root
                # Of all, one that a failed build left is none.
                wanted = index.valid if self.name is None else own == self.name
                if wanted and not index.exclusion and index.name not in left:
                    yield table, index


def _left(table: Table, index: Index) -> tuple[str, ...]:
    """Return the invalid indexes that failed tries for an index left."""
    known = {
        names.fitted(index.name, f"{suffix}{number or ''}")
        for suffix in (NEW, OLD)
        for number in range(MOST_LEFT)
    }
    return tuple(i.name for i in table.indexes if not i.valid and i.name in known)


def _anew(table: Table, index: Index) -> Step:
    where = TableName(table.name.schema, index.name)
    second = names.fitted(index.name, NEW)
    drop = indexes.drop_index(table.name.schema, second, table.name)
    done = sql.SQL(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_index WHERE indexrelid ="
        " pg_catalog.to_regclass({}) AND indexrelid <> {} AND indisvalid)"
    ).format(sql.Literal(str(where)), sql.Literal(index.oid))
    if table.root is not None:
        done += sql.SQL(" OR NOT {}").format(direct.is_part(table))
    return Step(
        name=_step("reindex", table, index.name),
        work=Autocommit(
            statement=render(
                sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(where.identifier)
            ),
            lock=Lock.SHARE_UPDATE_EXCLUSIVE,
            table=table.name,
            done=render(done),
            leftover=render(sql.SQL("SELECT {}").format(_is_left(table, second))),
            remove=drop.statement,
            scans=True,
            # The first one is dropped as any index is.
            outlives=drop.outlives,
        ),
        no_reverse="it is the same index as before",
    )


def _gone(table: Table, name: str, step: str = "drop_left_over") -> Step:
    """Return the drop of an invalid index, where it is there."""
    drop = indexes.drop_index(table.name.schema, name, table.name)
    done = render(sql.SQL("SELECT NOT {}").format(_is_left(table, name)))
    return Step(
        name=_step(step, table, name),
        work=replace(drop, done=done),
        no_reverse="it was invalid, and of no use",
    )


def _is_left(table: Table, name: str) -> sql.Composable:
    return sql.SQL(
        "EXISTS (SELECT FROM pg_catalog.pg_index WHERE indexrelid ="
        " pg_catalog.to_regclass({}) AND indrelid = pg_catalog.to_regclass({})"
        " AND NOT indisvalid)"
    ).format(
        sql.Literal(str(TableName(table.name.schema, name))),
        sql.Literal(str(table.name)),
    )


def _step(what: str, table: Table, index: str) -> str:
    """Return a step's name; indexes of one name may be in several schemas."""
    if table.root is None or table.root.schema == table.name.schema:
        return f"{what} {sql.Identifier(index).as_string()}"
    return f"{what} {TableName(table.name.schema, index)}"
