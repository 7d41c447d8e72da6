"""Foreign keys that exist once, at whichever of two tables has the name.

Those to the table do, and those of it that change its rows. On the way back they are
what they are by then: one that somebody dropped stays away, one that was made otherwise
comes back so.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from migrator.facts import ForeignKey
from migrator.kernels.foreign_key import NOT_VALID_ON_PARTITIONED
from migrator.kernels.mirror_table.successor import Successor, going_over
from migrator.names import TableName
from migrator.plan import Refusal, render, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedKeys(Successor):
    """A table and its successor, and the foreign keys that go from one to the other."""

    def moved_keys(self) -> tuple[ForeignKey, ...]:
        """
        Return the foreign keys that are made anew in the exchange, each by its name.

        One that still referred to the former table would act there too, on rows that
        the mirror deletes or gives another key: ON DELETE CASCADE would delete what
        refers. By its name SET CONSTRAINTS would defer but one of two, and TRUNCATE
        would miss the former table in its list. For those of the table itself see
        `Successor.goes_over`.
        """
        return tuple(
            k for k in self.old.foreign_keys if self._comes(k) or self._acts(k)
        )

    def beside(self) -> tuple[TableName, ...]:
        """Return the tables at their other ends, which the exchange locks too."""
        keys = self.moved_keys()
        return tuple(dict.fromkeys(k.table if self._comes(k) else k.to for k in keys))

    def _comes(self, key: ForeignKey) -> bool:
        """Tell whether a key refers to the table."""
        return key.to == self.old.name

    def _acts(self, key: ForeignKey) -> bool:
        """Tell whether a key is one of the table by which rows elsewhere change its."""
        return key.table == self.old.name and key.name in {
            c.name for c in going_over(self.old)
        }

    def _is_there(self, key: ForeignKey) -> bool:
        """Tell whether the successor has its own, made while it was empty."""
        early = self.facts.server_version < NOT_VALID_ON_PARTITIONED
        return bool(self.partition_by) and early and self._acts(key)

    def given(self) -> tuple[str, ...]:
        """Return the names of those of the table that the successor has not yet."""
        return tuple(
            k.name for k in self.moved_keys() if self._acts(k) and not self._is_there(k)
        )

    def later_keys(self) -> Refusal:
        """Refuse foreign keys that came since: they would stay with the other table."""
        known = [
            # Of a table that is gone there is none.
            sql.SQL("(COALESCE(pg_catalog.to_regclass({})::oid, 0), {})").format(
                sql.Literal(str(k.table)), sql.Literal(k.name)
            )
            for k in self.moved_keys()
        ]
        later = sql.SQL(
            " FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conparentid = 0"
            " AND confrelid = {}::pg_catalog.regclass"
        ).format(sql.Literal(str(self.name)))
        if known:
            later += sql.SQL(" AND (conrelid, conname) NOT IN ({})").format(
                sql.SQL(", ").join(known)
            )
        listed = sql.SQL(
            "SELECT pg_catalog.string_agg(pg_catalog.format('%s of %s',"
            " pg_catalog.to_json(conname), conrelid::pg_catalog.regclass), ', ')"
        )
        return Refusal(
            count=render(sql.SQL("SELECT count(*)") + later),
            listed=render(listed + later),
            why=f"foreign key {{listed}} came to refer to {self.name} since",
            next="drop it, then run the same command again; add it afterwards.",
        )

    def unreferred(self) -> Iterator[sql.Composable]:
        """Yield the drops of the keys."""
        for key in self.moved_keys():
            yield _dropped(key)

    def referred(self) -> Iterator[sql.Composable]:
        """Yield what makes them again, at the table that has the name by then."""
        for key in self.moved_keys():
            if self._is_there(key):
                continue
            yield sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {} NOT VALID").format(
                key.table.identifier,
                sql.Identifier(key.name),
                type_name(key.definition),
            )
            if key.comment is not None:
                yield remark(key.table, key.name, key.comment)

    def unreferred_since(self) -> Iterator[sql.Composable]:
        """Yield the drops of those that are there, and what notes how they are."""
        for number, key in enumerate(self.moved_keys(), 1):
            noted = sql.SQL(
                "SELECT pg_catalog.set_config({as_}, COALESCE(pg_catalog.max("
                "pg_catalog.pg_get_constraintdef(oid)), ''), true),"
                " pg_catalog.set_config({said}, COALESCE(pg_catalog.max("
                "pg_catalog.obj_description(oid, 'pg_constraint')), ''), true)"
                " FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conname = {key}"
                " AND conrelid = pg_catalog.to_regclass({table})"
                " AND confrelid = pg_catalog.to_regclass({to})"
            ).format(
                as_=sql.Literal(_noted(number)),
                said=sql.Literal(_said(number)),
                key=sql.Literal(key.name),
                table=sql.Literal(str(key.table)),
                to=sql.Literal(str(key.to)),
            )
            yield noted
            if not self._is_there(key):
                yield _done(
                    sql.SQL(
                        "IF pg_catalog.current_setting({}) <> '' THEN {}; END IF;"
                    ).format(sql.Literal(_noted(number)), _dropped(key))
                )

    def referred_since(self) -> Iterator[sql.Composable]:
        """Yield what makes again those that were there, as they were."""
        for number, key in enumerate(self.moved_keys(), 1):
            again = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} %s NOT VALID").format(
                key.table.identifier, sql.Identifier(key.name)
            )
            comment = sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS %L").format(
                sql.Identifier(key.name), key.table.identifier
            )
            yield _done(
                sql.SQL(
                    "IF pg_catalog.current_setting({noted}) <> '' THEN EXECUTE"
                    " pg_catalog.format({again}, pg_catalog.regexp_replace("
                    "pg_catalog.current_setting({noted}), ' NOT VALID$', ''));"
                    " IF pg_catalog.current_setting({said}) <> '' THEN EXECUTE"
                    " pg_catalog.format({comment}, pg_catalog.current_setting({said}));"
                    " END IF; END IF;"
                ).format(
                    noted=sql.Literal(_noted(number)),
                    said=sql.Literal(_said(number)),
                    again=_formatted(again),
                    comment=_formatted(comment),
                )
            )


def remark(table: TableName, constraint: str, comment: str) -> sql.Composable:
    """Return the statement that gives a constraint its comment."""
    return sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
        sql.Identifier(constraint), table.identifier, sql.Literal(comment)
    )


def _dropped(key: ForeignKey) -> sql.Composable:
    """Return the drop of a foreign key."""
    return sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
        key.table.identifier, sql.Identifier(key.name)
    )


def _formatted(statement: sql.Composable) -> sql.Composable:
    """Return a statement as what `format` takes: its last sign of % is a place."""
    text = render(statement)
    place = text.rindex("%")
    return sql.Literal(text[:place].replace("%", "%%") + text[place:])


def _noted(number: int) -> str:
    """Return the setting that has a foreign key's definition."""
    return f"migrator.key_{number}"


def _said(number: int) -> str:
    """Return the setting that has its comment."""
    return f"migrator.key_{number}_comment"


def _done(body: sql.Composable) -> sql.Composable:
    """Return the statement that runs a block."""
    block = sql.SQL("BEGIN {} END").format(body)
    return sql.SQL("DO {}").format(sql.Literal(render(block)))
