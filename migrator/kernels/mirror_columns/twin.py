"""Two columns with the same values, written by either release."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.facts import Facts
from migrator.kernels.column_definition import granted_on_parts
from migrator.kernels.direct import catalogue_step, members
from migrator.kernels.mirror_columns.base import Mirror, distinct, new_value, old_value
from migrator.kernels.row_types import compiled_anew
from migrator.plan import Refusal, Step, render, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin(Mirror):
    """
    Two columns with the same values.

    The original column, with all that hangs on it (indexes, constraints,
    defaults, grants, comments), is never replaced: at retire the copy takes
    the retired name and the original takes the new one, in one transaction.
    """

    old: str
    new: str
    #: Type of both, with modifiers.
    type: str
    #: Whether `old` is of a domain over that type. The copy is not: the domain's
    #: default would pass for a write of the new release, its check would rewrite
    #: the table. What the original refuses, it refuses by either name.
    domain: bool
    collation: str | None
    image_equal: bool
    #: Statements that give the copy the privileges that the original has of its own.
    granted: tuple[sql.Composable, ...] = ()

    @classmethod
    def of(cls, facts: Facts, old: str, new: str) -> "Twin":
        """Return the mirror, whatever phase the facts are of."""
        # Before retire the original bears the old name, afterwards the new.
        column = facts.table.column(old) or facts.table.require(new)
        return cls(
            table=facts.table.name,
            tag=facts.tag,
            old=old,
            new=new,
            path=facts.path,
            type=column.base or column.type,
            domain=column.base is not None,
            collation=column.collation,
            image_equal=column.image_equal,
            granted=granted_on_parts(facts.table, new, old),
        )

    @property
    def retired(self) -> str:
        """The copy's name after retire."""
        return names.owned("retired", self.old, self.tag)

    def _on_in_window(self) -> tuple[sql.Composable, ...]:
        """
        Return the statements for the window: either release may write.

        Of an INSERT, OLD is null (manual, section 41.10.1), and so a value of the new
        release is another one.

        The function finds nothing by the session's search path. IS DISTINCT FROM looks
        its operator up there and takes no other one, so images are compared of every
        type: where `=` of a type compares images, that is the same.
        """
        body = sql.SQL(
            """
BEGIN
  IF {new_was_written} THEN
    {old} := {new};
  ELSE
    {new} := {old};
  END IF;
  RETURN NEW;
END
"""
        ).format(
            new=new_value(self.new),
            old=new_value(self.old),
            new_was_written=distinct(
                new_value(self.new), old_value(self.new), image_equal=False
            ),
        )
        when = self._out_of_step(self.old, self.new)
        return self.create(body, when, pinned=False)

    def _on_after_retire(self) -> tuple[sql.Composable, ...]:
        """Return the statements for after retire: new side to retired copy."""
        body = sql.SQL("\nBEGIN\n  {} := {};\n  RETURN NEW;\nEND\n").format(
            new_value(self.retired), new_value(self.new)
        )
        when = self._out_of_step(self.new, self.retired)
        return self.create(body, when, pinned=False)

    def _out_of_step(self, left: str, right: str) -> sql.Composable:
        return self._distinct(new_value(left), new_value(right))

    def _distinct(self, left: sql.Composable, right: sql.Composable) -> sql.Composable:
        if self.domain:
            # Images are compared of values of one type.
            cast = sql.SQL("{}::{}")
            left, right = (cast.format(v, type_name(self.type)) for v in (left, right))
        return distinct(left, right, image_equal=self.image_equal)

    def rows(self) -> sql.Composable:
        """Return the condition of rows that are out of step."""
        return self._distinct(sql.Identifier(self.new), sql.Identifier(self.old))

    def shown(self) -> tuple[str, ...]:
        """Return both columns."""
        return (self.old, self.new)

    def expand(self) -> Step:
        """Return the step that makes the copy and puts the dual write on."""
        collate = type_name(f" COLLATE {self.collation}" if self.collation else "")
        column = sql.Identifier(self.new)
        return Step(
            name="mirror_column",
            work=catalogue_step(
                self.table,
                sql.SQL("ALTER TABLE {} ADD COLUMN {} {}{}").format(
                    self.table.identifier, column, type_name(self.type), collate
                ),
                *self.granted,
                *self._on_in_window(),
            ),
            reverse=(
                catalogue_step(
                    self.table,
                    *self.remove(),
                    sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
                        self.table.identifier, column
                    ),
                ),
            ),
        )

    def values(self) -> Mapping[str, sql.Composable]:
        """Return the old column, as the new one's value."""
        return {self.new: sql.Identifier(self.old)}

    def _rename(self, given: str, wanted: str) -> sql.Composable:
        return sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
            self.table.identifier, sql.Identifier(given), sql.Identifier(wanted)
        )

    def _rename_indexes(self, indexes: Mapping[str, str]) -> list[sql.Composable]:
        return [
            sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                sql.Identifier(self.table.schema, given), sql.Identifier(wanted)
            )
            for given, wanted in indexes.items()
        ]

    def retire(self, indexes: Mapping[str, str]) -> Step:
        """
        Return the exchange of names, with the exchange back.

        Args:
            indexes: names of indexes before and after, exchanged along with it.
        """
        # The name goes from the type underneath to the domain.
        compiled = (compiled_anew(self.table),) if self.domain else ()
        forward = catalogue_step(
            self.table,
            *self.remove(),
            self._rename(self.new, self.retired),
            self._rename(self.old, self.new),
            *self._rename_indexes(indexes),
            *self._on_after_retire(),
            *compiled,
        )
        back = catalogue_step(
            self.table,
            *self.remove(),
            self._rename(self.new, self.old),
            self._rename(self.retired, self.new),
            *self._rename_indexes({new: old for old, new in indexes.items()}),
            *self._on_in_window(),
            *compiled,
        )
        why = (
            f"the dual-write trigger on {self.table} is missing or not enabled"
            " ALWAYS, so that one side may have missed writes"
        )
        forward = replace(forward, refusals=(self._bare(),))
        return Step(
            name="exchange_names",
            work=self.needs_compared(self.needs_on(forward, why)),
            reverse=(self.needs_on(back, why),),
        )

    def _bare(self) -> Refusal:
        """Refuse the exchange where somebody built on the copy, which is to go."""
        return Refusal(
            count=render(self._on_copy(sql.SQL("count(*)"))),
            listed=render(
                self._on_copy(
                    sql.SQL(
                        "pg_catalog.string_agg(DISTINCT"
                        " pg_catalog.pg_describe_object("
                        "CASE WHEN r.oid IS NULL THEN d.classid"
                        " ELSE 'pg_catalog.pg_class'::pg_catalog.regclass END,"
                        " COALESCE(r.ev_class, d.objid),"
                        " CASE WHEN r.oid IS NULL THEN d.objsubid ELSE 0 END), '; ')"
                    )
                )
            ),
            why="{count:object was|objects were} made since on column"
            f' "{self.new}", which is a copy until then and goes at the drop:'
            " {listed}",
            next="drop it, run the same command again, and make it anew afterwards,"
            " when the column of that name is the one that stays.",
        )

    def _on_copy(self, what: sql.Composable) -> sql.Composable:
        """Return a query of what depends on the copy and is none of the change's."""
        return sql.SQL(
            "SELECT {what} FROM pg_catalog.pg_depend d"
            " JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid"
            " AND a.attnum = d.refobjsubid"
            " LEFT JOIN pg_catalog.pg_class x"
            " ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
            " AND x.oid = d.objid"
            " LEFT JOIN pg_catalog.pg_trigger t"
            " ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass"
            " AND t.oid = d.objid"
            " LEFT JOIN pg_catalog.pg_rewrite r"
            " ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
            " AND r.oid = d.objid AND r.rulename = '_RETURN'"
            " WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
            " AND a.attrelid IN ({members}) AND a.attname = {copy}"
            " AND NOT COALESCE(pg_catalog.left(x.relname, {length}) = {owned}, false)"
            " AND t.tgname IS DISTINCT FROM {trigger}"
        ).format(
            what=what,
            members=members(self.table),
            copy=sql.Literal(self.new),
            length=sql.Literal(len(names.OWNED)),
            owned=sql.Literal(names.OWNED),
            trigger=sql.Literal(names.trigger(self.tag)),
        )

    def drop(self) -> Step:
        """Return the drop of the retired copy."""
        return Step(
            name="drop_retired_column",
            work=catalogue_step(
                self.table,
                *self.remove(),
                sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                    self.table.identifier, sql.Identifier(self.retired)
                ),
            ),
            no_reverse="the retired column and its indexes are gone",
            loses=True,
        )
