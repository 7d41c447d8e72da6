"""What every mirror within a row shares: its trigger, its chunks, its guard."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, LiteralString

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts
from migrator.kernels import direct, images
from migrator.kernels.direct import members
from migrator.kernels.dropping import meanwhile
from migrator.kernels.requirements import require_not_key, triggers
from migrator.kernels.rows import Update, comparisons, writes
from migrator.names import TableName
from migrator.plan import (
    GONE,
    Refusal,
    Steps,
    Transaction,
    render,
)

# What turns a value into text, or text into a value, by the session's settings.
SETTINGS: tuple[LiteralString, ...] = (
    "datestyle",
    "intervalstyle",
    "extra_float_digits",
    "timezone",
)


# What an expression raises where a value has no counterpart: a cast that fails, a
# value too long, a domain's check, the user's own RAISE (manual, appendix A). Some
# types call text that they do not take a syntax error (tsquery, ltree, hstore,
# jsonpath), a name of nothing (regclass and its like), or not supported (xml).
NO_COUNTERPART = sql.SQL(
    "data_exception OR integrity_constraint_violation OR raise_exception"
    " OR program_limit_exceeded OR syntax_error OR undefined_object"
    " OR undefined_table OR undefined_function OR ambiguous_function"
    " OR invalid_name OR feature_not_supported"
)


def distinct(
    left: sql.Composable, right: sql.Composable, *, image_equal: bool
) -> sql.Composable:
    """
    Return the condition that two values differ in their image.

    Args:
        left: the one value.
        right: the other, of the same type.
        image_equal: whether `=` of the type compares images already.
    """
    if image_equal:
        return sql.SQL("{} IS DISTINCT FROM {}").format(left, right)
    return images.DIFFER.format(images.record(left), images.record(right))


def new_value(column: str) -> sql.Composable:
    """Return a column of the row as it will be, in a trigger."""
    return sql.SQL("NEW.{}").format(sql.Identifier(column))


def old_value(column: str) -> sql.Composable:
    """Return a column of the row as it was, in a trigger."""
    return sql.SQL("OLD.{}").format(sql.Identifier(column))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror(ABC):
    """What both kinds share: a trigger on a table, owned by a change."""

    table: TableName
    tag: str
    #: Schemas in which the expressions were tried out.
    path: tuple[str, ...] = ()

    #: Settings that a value made by the trigger may depend on: they are those of
    #: the engine's session, whatever the application's are.
    settings: ClassVar[tuple[LiteralString, ...]] = ()

    @property
    def trigger(self) -> sql.Identifier:
        """The trigger's name."""
        return sql.Identifier(names.trigger(self.tag))

    def create(
        self,
        body: sql.Composable,
        when: sql.Composable | None,
        *,
        pinned: bool = True,
    ) -> tuple[sql.Composable, ...]:
        """
        Return the statements that put the dual write on.

        Args:
            body: of the trigger's function.
            when: the condition of rows that it is called for; None for all.
            pinned: whether the body means what it does by settings, the search path
                among them. Setting them takes longer than all else in a short body.
        """
        function = names.function(self.tag)
        settings: sql.Composable = sql.SQL("")
        if pinned:
            # The body means the same in every session, and in the backfill.
            settings = sql.SQL(" SET search_path = {}, pg_temp").format(
                direct.pinned_path(self.path, self.table.schema)
            ) + sql.SQL("").join(
                sql.SQL(f" SET {name} FROM CURRENT") for name in self.settings
            )
        condition = sql.SQL(" WHEN ({})").format(when) if when else sql.SQL("")
        return (
            sql.SQL(
                "CREATE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql{} AS {}"
            ).format(function, settings, sql.Literal(render(body))),
            sql.SQL(
                "CREATE TRIGGER {} BEFORE INSERT OR UPDATE ON {} FOR EACH ROW"
                "{} EXECUTE FUNCTION {}()"
            ).format(self.trigger, self.table.identifier, condition, function),
            sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(
                self.table.identifier, self.trigger
            ),
        )

    def remove(self) -> tuple[sql.Composable, ...]:
        """Return the statements that take the dual write off."""
        return (
            sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                self.trigger, self.table.identifier
            ),
            sql.SQL("DROP FUNCTION IF EXISTS {}()").format(names.function(self.tag)),
        )

    def is_on(self) -> str:
        """
        Return the question whether the dual write is on, for every session.

        It has to be on every partition: what fires is the trigger's clone there.
        """
        return direct.triggers_are_on(self.table, names.trigger(self.tag))

    def needs_compared(self, work: Transaction) -> Transaction:
        """
        Return the transaction, refused where a partition was never compared.

        It may have been attached since, with rows that are not in step. The lock
        on the parent keeps others from being attached.
        """
        count = sql.SQL(
            "SELECT count(*) FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.oid IN ({members}) AND c.relispartition AND c.relkind <> 'p'"
            " AND NOT EXISTS (SELECT FROM {ledger}.steps s"
            " JOIN {ledger}.changes k ON k.id = s.change WHERE k.tag = {tag}"
            " AND s.phase = 'verify' AND s.status = 'done'"
            " AND s.file_node <> {gone}"
            " AND s.step -> 'work' -> 'table' = pg_catalog.jsonb_build_object("
            "'schema', n.nspname, 'name', c.relname))"
        ).format(
            members=members(self.table),
            ledger=sql.Identifier(names.LEDGER_SCHEMA),
            tag=sql.Literal(self.tag),
            gone=sql.Literal(GONE),
        )
        late = Refusal(
            count=render(count),
            why="{count:partition was|partitions were} attached since the"
            " rows were compared",
            next="run `migrator rollback --to verified`, then the same command again.",
        )
        return replace(work, refusals=(*work.refusals, late))

    def needs_on(self, work: Transaction, why: str) -> Transaction:
        """Return the transaction, refused where the dual write is off."""
        return direct.needs(work, self.is_on(), why)

    @abstractmethod
    def values(self) -> Mapping[str, sql.Composable]:
        """Return what the backfill writes: an expression for each column."""

    @abstractmethod
    def rows(self) -> sql.Composable:
        """Return the condition of rows that are out of step."""

    @abstractmethod
    def shown(self) -> tuple[str, ...]:
        """Return the columns of both sides, to show a row that is out of step."""

    def backfill(self, facts: Facts, *, name: str, no_reverse: str) -> Steps:
        """Return the chunked updates that bring existing rows into step."""
        return writes(facts, name, self.unmade(), no_reverse=no_reverse)

    def unmade(self) -> Update:
        """Return what writes rows that came before the dual write."""
        return self.repair()

    def repair(self) -> Update:
        """Return what brings rows into step: the backfill's, and a comparison's."""
        return Update(values=self.values(), rows=self.rows(), guard=self.is_on())

    def verify(self, facts: Facts) -> Steps:
        """Return the comparison of both sides, with its repair."""
        return comparisons(
            facts,
            "compare_rows",
            self.rows(),
            shown=self.shown(),
            repair=self.repair(),
            no_reverse="nothing but rows out of step is changed",
        )


def require_mirrorable(
    facts: Facts,
    column: Column,
    *,
    is_key: bool = False,
    kept: Collection[str] = (),
    keys: Collection[str] = (),
) -> None:
    """
    Refuse a column of the old release that no second column could follow.

    Args:
        facts: of the table.
        column: the column.
        is_key: whether its identity and its foreign keys stay on it, or go over.
        kept: those of its dependents that stay on it, or go over.
        keys: the foreign keys of it that do.

    Raises:
        Refused: it is generated, an identity, part of a foreign key or of a
            partition key or used by another object, or a trigger of the application
            fires too late.
    """
    require_not_key(facts, column)
    where = f'Column "{column.name}" of table {facts.table.name}'
    if column.generated:
        raise Refused(
            f"{where} is generated: it cannot be written, so it cannot follow"
            " a second column.",
            next="add a second generated column, then drop the first.",
        )
    if column.identity and not is_key:
        raise Refused(
            f"{where} is an identity column: its values cannot be mirrored.",
            next="keep it, or change it in a maintenance window.",
        )
    bound = [f'"{k}"' for k in column.foreign_keys if k not in keys]
    if bound and not is_key:
        raise Refused(
            f"{where} takes part in foreign key {', '.join(bound)}; its actions would"
            " not reach a second column.",
            next="drop the foreign key first, and add it again afterwards.",
        )
    used = [d for d in column.dependents if d not in kept]
    if used:
        raise Refused(
            f"{where} is used by {'; '.join(used)}.",
            next="drop what depends on it first, and make it again afterwards."
            + meanwhile(used),
        )
    require_last_trigger(facts)


def require_last_trigger(facts: Facts) -> None:
    """Refuse a table where a trigger of the application fires behind the mirror's."""
    late = [
        t.name
        for t in triggers(facts.table)
        # That of another change writes what this one neither has nor reads.
        if t.before_row
        and t.name > names.trigger(facts.tag)
        and not t.name.startswith(names.TRIGGER_PREFIXES)
    ]
    if late:
        raise Refused(
            f'Trigger "{late[0]}" on table {facts.table.name} would fire after'
            " the dual write and could leave the two sides apart.",
            next=f'rename it to sort before "{names.TRIGGER_PREFIX}".',
        )
