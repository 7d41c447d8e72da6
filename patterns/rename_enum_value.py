"""Rename a value of an enum while both words are in use.

phase   statement                           lock on the table
expand  trigger: the new word becomes old   SHARE ROW EXCLUSIVE, no scan
        ALTER TYPE ADD VALUE                none, no scan
verify  count of rows with the new word     ACCESS SHARE
retire  RENAME VALUE (swap), trigger swaps  ACCESS EXCLUSIVE, no scan
drop    DROP TRIGGER                        ACCESS EXCLUSIVE, no scan

Until retire either word is taken and the old one stored, so that the old release
never meets the other. At retire the two values exchange their words: rows, defaults,
checks and indexes hold a value by its number, so that all of them say the new word at
once, and none is written. Going back exchanges them again.

Source: PostgreSQL manual, ALTER TYPE; section 8.7.4, Implementation Details.
"""

from dataclasses import KW_ONLY, dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels import direct, enums, requirements
from migrator.kernels.mirror_columns import Word, require_last_trigger
from migrator.kernels.rows import updates
from migrator.pattern import Pattern
from migrator.plan import (
    Notice,
    Probe,
    Refusal,
    State,
    Step,
    Steps,
    Transaction,
    render,
)


@dataclass(frozen=True, slots=True)
class RenameEnumValue(Pattern):
    """
    Call `value` of the enum that is the type of `column` of `table` `to`.

    Example:
        change = RenameEnumValue("orders", "state", "payed", "paid")

    Args:
        table: the table's name, without its schema.
        column: the one column of that type.
        value: the word of the old release.
        to: the word of the new release.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    value: str
    to: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return (
            f'rename value "{self.value}" of the enum of column "{self.column}" of'
            f' table "{self.table}" to "{self.to}"'
        )

    @property
    def admission(self) -> State:
        """From expanded: its word is taken from then on."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the column."""
        return frozenset({self.column})

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what no trigger could translate."""
        column = enums.require_enum(facts, self.column, self.value)
        requirements.require_all_rows_visible(facts)
        requirements.require_plain(facts, column)
        requirements.require_not_key(facts, column)
        require_last_trigger(facts)
        enums.require_label(self.title, self.to)
        if self.to == self.value:
            raise Refused(f"{self.title}: that is its name.", next="give another one.")
        notices = [
            Notice(
                text=f'Until retire rows hold "{self.value}", also where the new'
                f' release wrote "{self.to}": it has to take either where it reads, and'
                " ask for both where it filters."
            ),
            Notice(
                text=f'From retire on rows hold "{self.to}", and functions or reports'
                f' that look for "{self.value}" find none. PostgreSQL drops no value of'
                " an enum: the old word stays as one that no row has."
            ),
            *requirements.partition_notices(facts),
            *self._predicates(facts),
        ]
        if self.to in column.values:
            notices.append(
                Notice(
                    text=f'The enum has a value "{self.to}" already, as a rollback'
                    f' leaves it: rows that hold it become "{self.value}" at verify,'
                    " and which they were is not known afterwards.",
                    needs_assurance=True,
                )
            )
        return self.assure(tuple(notices))

    def _predicates(self, facts: Facts) -> tuple[Notice, ...]:
        """Return a note on each partial index for rows that hold the value."""
        word = sql.Literal(self.value).as_string(None)
        return tuple(
            Notice(
                text=f'Unique index "{i.name}" is for rows WHERE {i.predicate}: until'
                f' retire an INSERT … ON CONFLICT … WHERE that says "{self.to}" finds'
                f' no index (42P10), from then on one that says "{self.value}". ON'
                " CONFLICT DO NOTHING without a target takes either; else let the new"
                " release try the other word after that error."
                if i.unique
                else f'Index "{i.name}" is for rows WHERE {i.predicate}: until retire'
                f' a query that asks for "{self.to}" does not use it.',
                needs_assurance=i.unique,
            )
            for i in facts.table.indexes
            if self.column in i.mentions and word in (i.predicate or "")
        )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trials that the type is the role's, and this column's alone."""
        table = facts.table.name
        question = sql.SQL(
            "SELECT COALESCE((SELECT pg_catalog.string_agg(what, '; ') FROM ({}) AS u),"
            " '')"
        ).format(enums.further_uses(table, self.column))
        return (
            enums.type_is_owned(self.title, table, self.column),
            Probe(
                statements=(),
                question=render(question),
                otherwise=f"{self.title}: the enum is used by {{found}} as well, where"
                " nothing would translate the words.",
                next="give the column a type of its own first (ChangeColumnType).",
            ),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the translation, and behind it the word: no row comes to hold it."""
        word = self._word(facts)
        column = facts.table.require(self.column)
        place = render(sql.SQL("AFTER {}").format(sql.Literal(self.value)))
        return (
            Step(name="translate", work=word.put_on(), reverse=(word.off(),)),
            enums.add_value(facts.table.name, column, self.to, place),
        )

    def verify(self, facts: Facts) -> Steps:
        """Return the count of rows that hold the new word, with their repair."""
        return self._word(facts).verify(facts)

    def retire(self, facts: Facts) -> Steps:
        """Return the exchange of words."""
        old = self._word(facts)
        new = replace(old, written=self.value, stored=self.to)
        why = (
            f"the translating trigger on {facts.table.name} is missing or not enabled"
            " ALWAYS, so that rows may hold both words"
        )

        def exchange(after: Word) -> Transaction:
            work = direct.catalogue_step(
                facts.table.name, *old.remove(), *self._swap(facts), *after.on()
            )
            work = replace(work, refusals=(self._alone(facts),))
            return old.needs_on(work, why)

        return (
            Step(
                name="exchange_words",
                work=old.needs_compared(exchange(new)),
                reverse=(exchange(old),),
            ),
        )

    def drop(self, facts: Facts) -> Steps:
        """Return the end of the translation."""
        return (
            Step(
                name="end_translation",
                work=self._word(facts).off(),
                no_reverse="rows may have come to hold the old word since",
                loses=True,
            ),
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the exchange back, behind rows that hold the old word by now."""
        word = replace(self._word(facts), written=self.value, stored=self.to)
        again = "upgrade again"
        return (
            *updates(facts, "move_rows", word.values(), word.rows(), no_reverse=again),
            Step(
                name="exchange_words_back",
                work=direct.catalogue_step(facts.table.name, *self._swap(facts)),
                no_reverse=again,
            ),
        )

    def _word(self, facts: Facts) -> Word:
        return Word(
            table=facts.table.name,
            tag=facts.tag,
            path=facts.path,
            column=self.column,
            written=self.to,
            stored=self.value,
        )

    def _swap(self, facts: Facts) -> tuple[sql.Composable, ...]:
        spare = names.owned("spare", self.value, facts.tag)
        column = facts.table.require(self.column)
        return enums.swapped(column, self.value, self.to, spare)

    def _alone(self, facts: Facts) -> Refusal:
        uses = enums.further_uses(facts.table.name, self.column)
        return Refusal(
            count=render(sql.SQL("SELECT count(*) FROM ({}) AS u").format(uses)),
            why="{count:further column or type|further columns or types} came to use"
            " the enum, whose words would change without a translation",
            next="give them a type of their own, then run the same command again.",
        )
