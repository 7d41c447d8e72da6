"""Two shapes of the same data, whatever their columns: a pattern but for its words.

Splitting, merging and transforming columns, and changing their type, declare which
columns each release has and what makes them; the rest is here.
"""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts
from migrator.kernels import (
    along,
    direct,
    dropping,
    index_copies,
    mentions,
    reading,
    requirements,
    row_types,
    trials,
    trigger_arguments,
)
from migrator.kernels.altered import altered
from migrator.kernels.mirror_columns import (
    Pair,
    Side,
    carried,
    read_as,
    require_mirrorable,
)
from migrator.kernels.mirror_columns.carried import Carried
from migrator.kernels.parts import (
    Part,
    going_over,
    heir,
    index_spellings,
    indexes_tried,
    inherits,
    require_heritable,
    require_loose,
    require_type,
)
from migrator.kernels.rows import updates
from migrator.pattern import Pattern
from migrator.plan import (
    Footprint,
    Notice,
    Probe,
    Step,
    Steps,
    Transaction,
    expression,
    render,
    type_name,
)


class TwoShapes(Pattern):
    """A change from some columns of a table to others, with both in use."""

    __slots__ = ()

    @abstractmethod
    def old_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the columns of the old release."""

    @abstractmethod
    def new_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the columns of the new release."""

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what a second shape could not follow."""
        requirements.require_table(facts)
        requirements.require_all_rows_visible(facts)
        old, new = self.old_parts(facts), self.new_parts(facts)
        columns = [facts.table.require(part.name) for part in old]
        for part in new:
            names.checked(part.name, "column")
            requirements.require_free_column(facts, part.name)
        for part, column in zip(old, columns, strict=True):
            require_type(facts, part, column)
        self._require_carried(facts)
        known = _listed(part.name for part in old)
        gone = self._gone(facts)
        notices = [
            *row_types.comes(facts),
            Notice(
                text="Until retire a value of the new release that has no counterpart"
                f" in {known} is refused; afterwards it is stored, and its"
                " row marked."
            ),
            Notice(
                text=f"A value of {known} for which an expression fails is"
                " stored, and holds the change until it is corrected."
            ),
            *requirements.partition_notices(facts),
            *requirements.publication_notices(facts),
            *requirements.backfill_notices(facts, *(part.name for part in new)),
            *mentions.trigger_notices(facts, *gone),
            *(mentions.function_notices(facts, gone) if gone else ()),
        ]
        notices += [
            Notice(
                text=f'Column "{column.name}" has a default: explicit NULLs'
                " inserted by the new release become that default until retire."
            )
            for column in columns
            if column.default is not None
        ]
        heirs = {part.heir_of for part in new}
        over = self._over(facts)
        to = next((p.name for p in new if p.heir_of and not p.takes), None)
        notices += carried.notices(over, to)
        notices += [
            notice
            for column in columns
            if column.name not in heirs
            for notice in dropping.goes_along(
                facts, column, granted=True, lifted=[c.name for c in over]
            )
        ]
        return self.assure((*notices, *self.remarks(facts)))

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the questions what the expressions read, and what reads columns."""
        old, new = self.old_parts(facts), self.new_parts(facts)
        gone = self._gone(facts)
        there = [facts.table.column(part.name) is not None for part in (*old, *new)]
        found: dict[str, Probe] = {}
        if there == [True] * len(old) + [False] * len(new):
            found |= reading.asked(
                facts,
                *(render(self._back(facts, part)) for part in old),
                *(part.value for part in new),
                trial=tuple(map(render, self.trial(facts, sql.SQL("LIMIT 0")))),
            )
        found |= index_spellings(facts, old, new)
        if gone:
            found |= mentions.functions_that_read(facts.table.name, gone, comes=True)
        return found

    def _gone(self, facts: Facts) -> list[str]:
        """Return the names of old columns that no new one takes."""
        taken = {part.takes for part in self.new_parts(facts)}
        return [p.name for p in self.old_parts(facts) if p.name not in taken]

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the columns of both shapes, and what the expressions read besides."""
        own = Pattern.footprints(self, facts)
        beside = carried.footprints(self._over(facts))
        return (*own, *reading.footprints(facts, self), *beside)

    def keeps(self) -> Collection[str] | None:
        """Return which constraints and unique indexes heirs get; None for all."""
        return ()

    def _over(self, facts: Facts) -> tuple[Carried, ...]:
        """Return what the old columns are held to until retire."""
        old, new = self.old_parts(facts), self.new_parts(facts)
        return going_over(facts, old, new, self.keeps())

    def _require_carried(self, facts: Facts) -> None:
        """Refuse what hangs on the old columns and would go with them."""
        new = self.new_parts(facts)
        over = [name for c in self._over(facts) for name in c.names]
        for part in self.old_parts(facts):
            column = facts.table.require(part.name)
            granted = [p for p in new if part.name in (p.heir_of, *p.privileges_of)]
            require_mirrorable(
                facts,
                column,
                kept=(requirements.COLUMN_GRANTS,) if granted else (),
                keys=over,
            )
            require_loose(facts, column, over)
        for part in new:
            require_heritable(facts, part)

    def remarks(self, facts: Facts) -> tuple[Notice, ...]:
        """Return what else a reviewer of the one pattern should know."""
        return tuple(
            Notice(
                text=f'Index "{index.name}" of table {table.name} is copied on each'
                " partition; the parent and partitions that come later have none for"
                " the new column until one is made: CREATE INDEX … ON ONLY the table,"
                " then ALTER INDEX … ATTACH PARTITION.",
                needs_assurance=True,
            )
            for part in self.new_parts(facts)
            if part.heir_of is not None
            for table in (facts.table, *facts.table.partitions)
            if table.kind == "p"
            for index in index_copies.of_column(
                table, part.heir_of, bare=part.bare_of_expressions
            )
            # A partition's own is part of that of the parent.
            if index.root is None
        )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return trials of the types, and of the expressions on some rows."""
        old, new = self.old_parts(facts), self.new_parts(facts)
        trial = sql.Identifier("pg_temp", facts.table.name.name)
        statements = self.trial(facts, sql.SQL("LIMIT 100"))
        tried = (
            _update(trial, {p.name: expression(p.value) for p in new}),
            _update(trial, {p.name: self._back(facts, p) for p in old}),
            *(s for part in new for s in inherits(facts, part)),
            # After retire the old columns are not there to be read.
            sql.SQL("ALTER TABLE {} {}").format(
                trial,
                sql.SQL(", ").join(
                    sql.SQL("DROP COLUMN {}").format(sql.Identifier(part.name))
                    for part in old
                ),
            ),
            *(
                sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                    trial, sql.Identifier(part.name), sql.Identifier(part.takes)
                )
                for part in new
                if part.takes
            ),
        )
        made = sql.SQL(", ").join(
            sql.SQL("count({})").format(expression(part.value)) for part in old
        )
        return (
            *(trials.bare_type(self.title, part.type or "") for part in new),
            *(probe for part in old for probe in trials.takes_null(facts, part.name)),
            *trials.reads_no_generated(
                self.title,
                facts,
                *(render(self._back(facts, part)) for part in old),
                *(part.value for part in new),
                trial=tuple(render(s) for s in statements),
            ),
            Probe(
                statements=tuple(render(s) for s in (*statements, *tried)),
                question=render(
                    sql.SQL("SELECT ROW({}) IS NOT NULL FROM {}").format(made, trial)
                ),
                otherwise="",
            ),
            *self.there_and_back(facts),
            *(
                probe
                for part in new
                for probe in indexes_tried(self.title, facts, part, statements)
            ),
            *carried.tried(
                self.title,
                self._over(facts),
                facts,
                self.trial(facts, sql.SQL("LIMIT 0")),
            ),
        )

    def there_and_back(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial whether some rows come back as they were."""
        return trials.comes_back(
            facts,
            partial(self.trial, facts),
            {part.name: part.value for part in self.new_parts(facts)},
            {part.name: self._back(facts, part) for part in self.old_parts(facts)},
        )

    def trial(self, facts: Facts, sample: sql.Composable) -> tuple[sql.Composable, ...]:
        """
        Return statements that make a temporary table of the same name.

        It has some of the rows, and the new columns.

        Args:
            facts: of the table.
            sample: what follows the table's name in the query of the rows.
        """
        table = facts.table.name
        trial = sql.Identifier("pg_temp", table.name)
        columns = (
            sql.SQL("ADD COLUMN {} {}").format(sql.Identifier(part.name), part.ddl)
            for part in self.new_parts(facts)
        )
        return (
            sql.SQL("CREATE TEMP TABLE {} (LIKE {})").format(
                sql.Identifier(table.name), table.identifier
            ),
            sql.SQL("INSERT INTO {} SELECT * FROM {} {}").format(
                trial, table.identifier, sample
            ),
            sql.SQL("ALTER TABLE {} {}").format(trial, sql.SQL(", ").join(columns)),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the new columns with the dual write."""
        step, table = self.pair(facts).expand(facts), facts.table.name
        assert isinstance(step.work, Transaction)
        # Its trigger reads and writes them.
        read = {part.name for part in self.old_parts(facts)} | self.mentioned()
        refusals = (*step.work.refusals, altered(facts.table, read))
        step = replace(step, work=replace(step.work, refusals=refusals))
        made = (part.name for part in self.new_parts(facts))
        return (trigger_arguments.held_back(step, table, *made),)

    def backfill(self, facts: Facts) -> Steps:
        """Return the new shape of existing rows."""
        pair = self.pair(facts)
        rows = pair.backfill(
            facts, name="compute_rows", no_reverse="the values go with the new side"
        )
        return (*rows, *pair.copy_indexes(facts))

    def verify(self, facts: Facts) -> Steps:
        """Return the comparison."""
        return self.pair(facts).verify(facts)

    def retire(self, facts: Facts) -> Steps:
        """
        Return the exchange of shapes.

        Raises:
            Refused: something was put on the old columns since, and would go.
        """
        pair = self.pair(facts)
        made = all(facts.table.column(s.name) for s in pair.new)
        if made and not any(facts.table.column(s.retired) for s in pair.old):
            self._require_carried(facts)
        gone = self._gone(facts)
        new = [side.name for side in pair.new]
        steps = along.kept(pair.retire(facts), facts, *gone, without=new)
        return trigger_arguments.held(
            steps, facts.table.name, *gone, assured=self.assured
        )

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the retired columns."""
        steps, gone = (self.pair(facts).drop(facts),), self._gone(facts)
        return trigger_arguments.held(
            steps, facts.table.name, *gone, late=True, assured=self.assured
        )

    def rebuild(self, facts: Facts) -> Steps:
        """
        Return the old columns, made from the new ones; nullable.

        What they were held to until retire, the ledger knows.
        """
        old, new = self.old_parts(facts), self.new_parts(facts)
        for part in old:
            if part.type is None:
                given = self.parameters().keys()
                name = next(n for n in ("old_type", "type", "types") if n in given)
                value = f'{{"{part.name}": "…"}}' if name == "types" else '"…"'
                raise Refused(
                    f'{self.title}: the type of the dropped column "{part.name}" is'
                    " not known.",
                    next=f"write {name}={value} into the pattern, with the type as the"
                    " server spelt it.",
                )
        table = facts.table.name
        return (
            Step(
                name="add_old_side",
                work=direct.catalogue_step(
                    table,
                    *(
                        sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                            table.identifier,
                            sql.Identifier(part.takes),
                            sql.Identifier(part.name),
                        )
                        for part in new
                        if part.takes
                    ),
                    *(
                        sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
                            table.identifier,
                            sql.Identifier(part.name),
                            type_name(part.type or ""),
                        )
                        for part in old
                    ),
                ),
                no_reverse="upgrade again",
            ),
            *updates(
                facts,
                "compute_rows",
                {part.name: self._back(facts, part) for part in old},
                sql.SQL("true"),
                no_reverse="upgrade again",
            ),
            Step(
                name="drop_new_side",
                work=direct.catalogue_step(
                    table,
                    *(
                        sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                            table.identifier, sql.Identifier(part.name)
                        )
                        for part in new
                    ),
                ),
                no_reverse="upgrade again",
                loses=True,
            ),
        )

    def pair(self, facts: Facts) -> Pair:
        """Return the mirror, whatever phase the facts are of."""
        old = tuple(self._old_side(facts, part) for part in self.old_parts(facts))
        new = tuple(self._new_side(facts, part) for part in self.new_parts(facts))
        if any(side.collation for side in (*old, *new)):
            # Two collations in one comparison are refused by the server, or one
            # decides for both; images have none.
            old, new = (
                tuple(replace(side, image_equal=False) for side in sides)
                for sides in (old, new)
            )
        return Pair(
            table=facts.table.name,
            tag=facts.tag,
            path=facts.path,
            old=old,
            new=new,
            over=self._over(facts),
        )

    def _back(self, facts: Facts, part: Part) -> sql.Composable:
        """Return what makes an old column, while both shapes are there."""
        known = {
            p.takes: sql.Identifier(p.name) for p in self.new_parts(facts) if p.takes
        }
        return read_as(part.value, known, facts.table.name)

    def _old_side(self, facts: Facts, part: Part) -> Side:
        retired = names.owned("retired", part.name, facts.tag)
        column = (
            facts.table.column(retired)
            or facts.table.column(part.name)
            or Column(name=part.name, type=part.type or "text")
        )
        return Side(
            name=part.name,
            retired=retired,
            type=column.type,
            value=part.value,
            collation=column.collation,
            image_equal=column.image_equal,
            not_null=column.not_null,
        )

    def _new_side(self, facts: Facts, part: Part) -> Side:
        took = part.takes is not None and any(
            facts.table.column(names.owned("retired", p.name, facts.tag))
            for p in self.old_parts(facts)
        )
        column = facts.table.column(part.takes or "" if took else part.name)
        heir_of = heir(facts, part)
        return Side(
            name=part.name,
            retired=names.owned("parked", part.takes or part.name, facts.tag),
            type=part.type or "",
            value=part.value,
            collation=part.collation,
            # Until it exists, images are compared, which is right for every type.
            image_equal=column is not None and column.image_equal,
            not_null=heir_of is not None and heir_of.not_null,
            takes=part.takes,
            heir_of=heir_of,
            privileges_of=part.privileges_of,
            default=part.default,
            bare_of_expressions=part.bare_of_expressions,
        )


def _listed(given: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in given)


def _update(
    trial: sql.Composable, values: Mapping[str, sql.Composable]
) -> sql.Composable:
    return sql.SQL("UPDATE {} SET {}").format(
        trial,
        sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), value)
            for name, value in values.items()
        ),
    )
