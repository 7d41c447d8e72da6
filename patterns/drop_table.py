"""Drop a table that the new release does not know.

phase     statement                           lock on the table
retire    RENAME TO, out of sight             ACCESS EXCLUSIVE, no scan
drop      DROP CONSTRAINT, each foreign key   ACCESS EXCLUSIVE on both tables, no scan
          DROP TABLE                          ACCESS EXCLUSIVE, no scan

From retire on the name is free. Rows, indexes, grants and triggers stay with the
table until the drop; going back is a rename.

Source: PostgreSQL manual, DROP TABLE.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts, ForeignKey
from migrator.final import Final
from migrator.kernels import direct, mentions, requirements
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import (
    Notice,
    Probe,
    State,
    Step,
    Steps,
    Transaction,
    render,
    type_name,
)


@dataclass(frozen=True, slots=True)
class DropTable(Pattern):
    """
    Drop `table`.

    Example:
        change = DropTable("old_orders")

    Args:
        table: the table's name, without its schema.
        create: the CREATE TABLE statement; only a downgrade after the drop needs it.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    _: KW_ONLY
    create: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'drop table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: the new release reads nothing of it."""
        return State.EXPANDED

    def columns(self) -> None:
        """Return None: all of it."""
        return

    def final(self) -> Final:
        """Return that it is gone."""
        return Final(there=False)

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question which functions read the table."""
        return mentions.functions_that_read(facts.known_as)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what depends on the table and would not go with it."""
        requirements.require_table(facts)
        requirements.require_no_member(facts.table)
        self._require_unused(facts)
        held = tuple(
            Notice(
                text=f'Foreign key "{key.name}" to table {key.to} stays in force until'
                " the drop: rows that the table refers to are not deleted past it.",
                needs_assurance=True,
            )
            for key in self._foreign_keys(facts)
        )
        size = Notice(
            text="Names of its indexes, sequences and partitions stay taken until the"
            " drop."
        )
        return self.assure((size, *held, *mentions.function_notices(facts)))

    def _require_unused(self, facts: Facts) -> None:
        table = facts.table
        if table.dependents:
            raise Refused(
                f"Table {table.name} is used by {'; '.join(table.dependents)}.",
                next="drop what depends on it first, or make it again without it.",
            )
        for key in table.foreign_keys:
            if key.to in self._members(facts) and key.table not in self._members(facts):
                raise Refused(
                    f"Table {table.name} is referred to by foreign key"
                    f' "{key.name}" of table {key.table}.',
                    next="drop that foreign key first, by a change of its own: it locks"
                    " both tables.",
                )

    def expand(self, facts: Facts) -> Steps:
        """Return nothing: the old release uses it."""
        return ()

    def retire(self, facts: Facts) -> Steps:
        """
        Return the rename out of sight.

        Raises:
            Refused: something came to depend on the table since.
        """
        self._require_unused(facts)
        table, retired = self._names(facts)
        taken = direct.name_taken(table)
        back = replace(direct.rename_table(retired, table), refusals=(taken,))
        return (
            Step(
                name="retire_table",
                work=direct.rename_table(table, retired),
                reverse=(back,),
            ),
        )

    def drop(self, facts: Facts) -> Steps:
        """
        Return the drop of foreign keys one by one, then of the table.

        Raises:
            Refused: something came to depend on the table since.
        """
        self._require_unused(facts)
        table, retired = self._names(facts)
        last = Step(
            name="drop_table",
            work=direct.catalogue_step(
                retired, sql.SQL("DROP TABLE {}").format(retired.identifier)
            ),
            no_reverse="the table's rows are gone",
            loses=True,
        )
        keys = (
            replace(k, table=retired if k.table == table else k.table)
            for k in self._foreign_keys(facts)
        )
        return (
            *(
                direct.drop_foreign_key(key, f"drop_foreign_key_{number}")
                for number, key in enumerate(keys, 1)
            ),
            last,
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the statement that the user gave."""
        if self.create is None:
            raise Refused(
                f"{self.title}: the shape of the dropped table is not known.",
                next='write create="CREATE TABLE …" into the pattern.',
            )
        statements = (render(type_name(self.create)),)
        return (
            Step(
                name="create_table",
                work=Transaction(statements=statements, table=facts.table.name),
                no_reverse="upgrade again",
            ),
        )

    def _names(self, facts: Facts) -> tuple[TableName, TableName]:
        """Return the names before and after retire, whichever it has now."""
        table = TableName(facts.table.name.schema, self.table)
        return table, names.retired(table, facts.tag)

    def _members(self, facts: Facts) -> set[TableName]:
        return {facts.table.name, *(p.name for p in facts.table.partitions)}

    def _foreign_keys(self, facts: Facts) -> tuple[ForeignKey, ...]:
        """Return those to other tables; one to itself goes with it."""
        members = self._members(facts)
        return tuple(
            k
            for k in facts.table.foreign_keys
            if k.table in members and k.to not in members
        )
