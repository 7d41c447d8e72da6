"""What the triggers of an array, of its values and of the links between them do.

A trigger looks at what its event touched, and decides by what both sides hold by then.
So it ends what it set off itself: the other side's trigger finds in step what it looks
at. Depth and settings tell nothing where triggers of the application write as well.

Source: PostgreSQL manual, sections 13.2.1 (each statement of a function sees what was
committed before it), 13.3.2 and 39.1 (transition tables); INSERT, ON CONFLICT Clause.
"""

from dataclasses import dataclass

from psycopg import sql

from migrator.kernels.mirror_table.linked import (
    LINK,
    ROW,
    Linked,
    columns_of,
    listed,
)
from migrator.plan import type_name

# Transition tables.
OLD = sql.Identifier("_migrator_old")
NEW = sql.Identifier("_migrator_new")
# Other names in functions.
_ELEMENT = sql.Identifier("_migrator_element")
_TOUCHED = sql.Identifier("_migrator_touched")
_NAMES = sql.Identifier("_migrator_names")
_NOW = sql.Identifier("_migrator_now")
_ONE = sql.Identifier("_migrator_one")
_HELD = sql.Identifier("_migrator_held")
# A value that is found taken, and then is not there, was removed or changed meanwhile.
_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFunctions(Linked):
    """The texts of the functions of an array's dual write."""

    @property
    def filling(self) -> str:
        """The setting that is on while the backfill's function fills links."""
        return f"migrator.filling_{self.tag}"

    def array_function(self) -> sql.Composable:
        """
        Return the function of the table: what came into the array is linked.

        So is all that is in the array of a row with another key: rows are filled in the
        order of keys, and those of this one may be done.

        The foreign key, once it is there, does for a deleted or renumbered row what
        this does; before, TRUNCATE of the table needs no CASCADE.
        """
        return sql.SQL(
            """
#variable_conflict use_column
DECLARE
  {now} {element}[];
  {names} {element}[];
  {one} {element};
  {held} bigint;
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    IF EXISTS (SELECT FROM {links}) THEN
      TRUNCATE {links};
    END IF;
    RETURN NULL;
  END IF;
  IF TG_OP = 'DELETE' THEN
    -- The statement may have put a row with that key in again.
    DELETE FROM {links} AS {link} WHERE {links_of_old} AND NOT EXISTS (
      SELECT FROM {table} AS {row} JOIN {values} AS {value} ON {linked}
       WHERE {row_of_old} AND {value}.{v} = ANY ({row}.{array}));
    RETURN NULL;
  END IF;
  IF TG_OP = 'UPDATE' AND ({moved}) THEN
    UPDATE {links} AS {link} SET {renumbered} WHERE {links_of_old};
  END IF;
  -- Another trigger may have written it again.
  SELECT {row}.{array} INTO {now} FROM {table} AS {row} WHERE {row_of_new};
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  IF TG_OP = 'UPDATE' THEN
    DELETE FROM {links} AS {link} USING {values} AS {value}
     WHERE {links_of_new} AND {linked}
       AND {value}.{v} = ANY (OLD.{array})
       AND ({value}.{v} = ANY (NEW.{array})) IS NOT TRUE
       AND ({value}.{v} = ANY ({now})) IS NOT TRUE;
    {names} := ARRAY(
      SELECT DISTINCT {element_} FROM pg_catalog.unnest(NEW.{array}) AS _u ({element_})
       WHERE {element_} = ANY ({now})
         AND ({moved} OR ({element_} = ANY (OLD.{array})) IS NOT TRUE)
         AND NOT {is_linked}
       ORDER BY {element_});
  ELSE
    {names} := ARRAY(
      SELECT DISTINCT {element_} FROM pg_catalog.unnest(NEW.{array}) AS _u ({element_})
       WHERE {element_} = ANY ({now}) AND NOT {is_linked}
       ORDER BY {element_});
  END IF;
  IF {names} = '{{}}' THEN
    RETURN NULL;
  END IF;
  {taken}
  INSERT INTO {links} ({key}, {reference})
    SELECT {new_key}, {value}.{number} FROM {values} AS {value}
     WHERE {value}.{v} = ANY ({names})
    ON CONFLICT ({key}, {reference}) DO NOTHING;
  RETURN NULL;
END
"""
        ).format(
            **self.words(),
            element_=_ELEMENT,
            now=_NOW,
            names=_NAMES,
            one=_ONE,
            held=_HELD,
            element=type_name(self.element),
            moved=self.moved(),
            renumbered=sql.SQL(", ").join(
                sql.SQL("{} = NEW.{}").format(
                    sql.Identifier(name), sql.Identifier(k.column)
                )
                for name, k in self.key.items()
            ),
            links_of_old=self.joined(LINK, sql.SQL("OLD")),
            links_of_new=self.joined(LINK, sql.SQL("NEW")),
            row_of_old=self.same(ROW, sql.SQL("OLD")),
            row_of_new=self.same(ROW, sql.SQL("NEW")),
            is_linked=self.is_linked(sql.SQL("NEW"), _ELEMENT),
            new_key=columns_of(sql.SQL("NEW"), self.columns()),
            taken=self._taken(),
        )

    def lock_function(self) -> sql.Composable:
        """Return the function that locks the row with the array before its links."""
        return sql.SQL(
            """
#variable_conflict use_column
BEGIN
  IF TG_OP <> 'INSERT' THEN
    PERFORM FROM {table} AS {row} WHERE {of_old} FOR NO KEY UPDATE;
  END IF;
  IF TG_OP = 'DELETE' THEN
    RETURN OLD;
  END IF;
  PERFORM FROM {table} AS {row} WHERE {of_new} FOR NO KEY UPDATE;
  RETURN NEW;
END
"""
        ).format(
            **self.words(),
            of_old=self.joined(sql.SQL("OLD"), ROW),
            of_new=self.joined(sql.SQL("NEW"), ROW),
        )

    def links_function(self) -> sql.Composable:
        """
        Return the function of the links: the arrays that they touch follow.

        Where a value is deleted, its name is gone when its links go. They are what is
        in the array without a row of the values, if that is as many: an array that was
        never in step may have more of these, and keeps them.

        Until the foreign key is there, it stands for it as well.
        """

        def touched(
            *tables: sql.Composable, lost: sql.Composable | None = None
        ) -> sql.Composable:
            each = [
                sql.SQL(
                    "SELECT {key}, {value}.{v} FROM {t} AS {link}"
                    " JOIN {values} AS {value} ON {linked}"
                ).format(
                    **{**self.words(), "key": columns_of(LINK, self.key)},
                    t=table,
                )
                for table in tables
            ]
            return self._settled(
                sql.SQL(" UNION ALL ").join([*each, *([lost] if lost else [])])
            )

        return sql.SQL(
            """
#variable_conflict use_column
BEGIN
  IF TG_OP = 'INSERT' THEN
    {referred}
    {came}
  ELSIF TG_OP = 'DELETE' THEN
    {went}
  ELSIF TG_OP = 'UPDATE' THEN
    {referred}
    {moved}
  ELSE
    -- No value has a link any more.
    UPDATE {table} AS {row} SET {array} =
        ARRAY(SELECT _u.e FROM pg_catalog.unnest({row}.{array}) AS _u (e)
               WHERE _u.e IS NULL)
     WHERE EXISTS (SELECT FROM pg_catalog.unnest({row}.{array}) AS _u (e)
                    WHERE _u.e IS NOT NULL);
  END IF;
  RETURN NULL;
END
"""
        ).format(
            **self.words(),
            referred=sql.SQL("") if self.retired else self._referred(),
            came=touched(NEW),
            went=touched(OLD, lost=self._lost()),
            moved=touched(OLD, NEW),
        )

    def _lost(self) -> sql.Composable:
        """Return the query of what links stood for whose values are gone."""
        columns = columns_of(LINK, self.key)
        return sql.SQL(
            """SELECT {keys}, _lost.e FROM (
          SELECT {keys}, count(*) AS _links FROM {old} AS {link}
           WHERE NOT EXISTS (SELECT FROM {values} AS {value} WHERE {linked})
           GROUP BY {keys}) AS {link}
        JOIN {table} AS {row} ON {joined}
        CROSS JOIN LATERAL (
          SELECT pg_catalog.array_agg(DISTINCT _u.e) AS all_of
            FROM pg_catalog.unnest({row}.{array}) AS _u (e)
           WHERE _u.e IS NOT NULL AND NOT EXISTS (
             SELECT FROM {values} AS {value} WHERE {value}.{v} = _u.e)) AS _a
        CROSS JOIN LATERAL pg_catalog.unnest(_a.all_of) AS _lost (e)
       WHERE pg_catalog.cardinality(_a.all_of) = {link}._links"""
        ).format(**self.words(), keys=columns, old=OLD, joined=self.joined(LINK, ROW))

    def _referred(self) -> sql.Composable:
        """Return the refusal of links of a row that is not there."""
        return sql.SQL(
            """IF EXISTS (SELECT FROM {new} AS {link} WHERE NOT EXISTS (
        SELECT FROM {table} AS {row} WHERE {joined})) THEN
      RAISE foreign_key_violation USING MESSAGE = {message}, SCHEMA = {schema},
        TABLE = {name}, CONSTRAINT = {constraint};
    END IF;"""
        ).format(
            new=NEW,
            link=LINK,
            table=self.table.identifier,
            row=ROW,
            joined=self.joined(LINK, ROW),
            message=sql.Literal(
                f'insert or update on table "{self.links.name}" violates foreign key'
                f' constraint "{self.foreign_key}"'
            ),
            schema=sql.Literal(self.links.schema),
            name=sql.Literal(self.links.name),
            constraint=sql.Literal(self.foreign_key),
        )

    def values_function(self) -> sql.Composable:
        """
        Return the function of the values.

        Arrays are locked in the order of their key before the links are that go with a
        value: otherwise a request that has an array would wait for a link, and this for
        the array.

        A value that is renamed keeps its places; all of a statement at once, since one
        may take the name that another one had. It goes by the name that a value has by
        then: one that nobody has would come into the table of values again. What is
        left is for a value that was renumbered as well.
        """
        changed = sql.SQL(
            "NOT EXISTS (SELECT FROM {} AS _o"
            " WHERE _o.{n} = _n.{n} AND _o.{v} = _n.{v})"
        ).format(OLD, n=sql.Identifier(self.number), v=sql.Identifier(self.value))
        return sql.SQL(
            """
#variable_conflict use_column
BEGIN
  IF TG_OP = 'DELETE' AND TG_WHEN = 'BEFORE' THEN
    PERFORM FROM {table} AS {row} WHERE EXISTS (
        SELECT FROM {links} AS {link}
         WHERE {joined} AND {link}.{reference} = OLD.{number})
      ORDER BY {order} FOR NO KEY UPDATE;
    RETURN OLD;
  END IF;
  IF TG_OP = 'DELETE' THEN
    -- The foreign key does so before, but for a session that skips its triggers.
    DELETE FROM {links} AS {link} WHERE {link}.{reference} = OLD.{number};
    RETURN NULL;
  END IF;
  IF NOT EXISTS (SELECT FROM {new} AS _n WHERE {changed}) THEN
    RETURN NULL;
  END IF;
  PERFORM FROM {table} AS {row} WHERE EXISTS (
      SELECT FROM {links} AS {link} JOIN {new} AS _n ON _n.{number} = {link}.{reference}
       WHERE {joined} AND {changed})
    ORDER BY {order} FOR NO KEY UPDATE;
  UPDATE {table} AS {row} SET {array} = ARRAY(
      SELECT COALESCE((
          SELECT {value}.{v} FROM {old} AS _o
            JOIN {new} AS _n ON _n.{number} = _o.{number} AND {changed}
            JOIN {values} AS {value} ON {value}.{number} = _o.{number}
           WHERE _o.{v} = _u.e AND (({value}.{v} = ANY ({row}.{array})) IS NOT TRUE
             OR EXISTS (SELECT FROM {old} AS _x WHERE _x.{v} = {value}.{v}))), _u.e)
        FROM pg_catalog.unnest({row}.{array}) WITH ORDINALITY AS _u (e, place)
       ORDER BY _u.place)
   WHERE EXISTS (
      SELECT FROM {links} AS {link} JOIN {new} AS _n ON _n.{number} = {link}.{reference}
        JOIN {old} AS _o ON _o.{number} = _n.{number}
       WHERE {joined} AND {changed} AND _o.{v} = ANY ({row}.{array}));
  {settled}
  RETURN NULL;
END
"""
        ).format(
            **self.words(),
            old=OLD,
            new=NEW,
            changed=changed,
            joined=self.joined(LINK, ROW),
            order=columns_of(ROW, self.columns()),
            settled=self._settled(
                sql.SQL(
                    "SELECT {key}, _x.v FROM {links} AS {link}"
                    " JOIN {new} AS _n ON _n.{number} = {link}.{reference}"
                    " AND {changed} CROSS JOIN LATERAL (SELECT _n.{v} UNION ALL"
                    " SELECT _o.{v} FROM {old} AS _o WHERE _o.{number} = _n.{number}"
                    " OR NOT EXISTS (SELECT FROM {new} AS _m"
                    " WHERE _m.{number} = _o.{number})) AS _x (v)"
                ).format(
                    **{**self.words(), "key": columns_of(LINK, self.key)},
                    old=OLD,
                    new=NEW,
                    changed=changed,
                )
            ),
        )

    def _settled(self, touched: sql.Composable) -> sql.Composable:
        """
        Return the statement by which arrays have the touched values that are linked.

        Args:
            touched: query of keys of links, and a value of each.
        """
        columns = [f"_{number}" for number, _ in enumerate(self.key, 1)]
        here = sql.SQL(" AND ").join(
            sql.SQL("{row}.{c} {equal} {touched}.{key}").format(
                row=ROW,
                c=sql.Identifier(k.column),
                equal=type_name(k.equal),
                touched=_TOUCHED,
                key=sql.Identifier(column),
            )
            for column, k in zip(columns, self.key.values(), strict=True)
        )
        keys = listed(columns)
        return sql.SQL(
            """UPDATE {table} AS {row} SET {array} = ARRAY(
        SELECT _u.e FROM pg_catalog.unnest({row}.{array}) WITH ORDINALITY AS _u (e, n)
         WHERE _u.e IS NULL OR _u.e <> ALL ({touched}.{names}) OR {kept}
         ORDER BY _u.n)
      || ARRAY(
        SELECT {value}.{v} FROM {links} AS {link} JOIN {values} AS {value} ON {linked}
         WHERE {joined} AND {value}.{v} = ANY ({touched}.{names})
           AND ({value}.{v} = ANY ({row}.{array})) IS NOT TRUE
         ORDER BY {value}.{number})
      FROM (SELECT {keys}, pg_catalog.array_agg(DISTINCT _v) AS {names}
              FROM ({given}) AS _given ({keys}, _v) GROUP BY {keys}) AS {touched}
     WHERE {here} AND EXISTS (
        SELECT FROM pg_catalog.unnest({touched}.{names}) AS _w (e)
         WHERE (_w.e = ANY ({row}.{array})) IS TRUE <> {wanted});"""
        ).format(
            **self.words(),
            touched=_TOUCHED,
            names=_NAMES,
            keys=keys,
            given=touched,
            here=here,
            joined=self.joined(LINK, ROW),
            kept=self.is_linked(ROW, sql.SQL("_u.e")),
            wanted=self.is_linked(ROW, sql.SQL("_w.e")),
        )

    def _taken(self) -> sql.Composable:
        """
        Return the statements that find values, or make them, and keep them so.

        They are in the variable of names, each once; those too long for an index are
        taken out, so that the array has them alone, out of step. New ones are made in
        their order: two requests that make the same ones wait for each other in turn.
        """
        return sql.SQL(
            """
  FOR _ IN 1..{tries} LOOP
    -- What is renamed or removed just now is waited for.
    PERFORM FROM {values} AS {value} WHERE {value}.{v} = ANY ({names}) FOR KEY SHARE;
    GET DIAGNOSTICS {held} = ROW_COUNT;
    EXIT WHEN {held} = pg_catalog.cardinality({names});
    BEGIN
      INSERT INTO {values} ({v})
        SELECT _u.e FROM pg_catalog.unnest({names}) AS _u (e)
         WHERE NOT EXISTS (SELECT FROM {values} AS {value} WHERE {value}.{v} = _u.e)
         ORDER BY _u.e
        ON CONFLICT ({v}) DO NOTHING;
    EXCEPTION WHEN program_limit_exceeded THEN
      FOREACH {one} IN ARRAY {names} LOOP
        BEGIN
          INSERT INTO {values} ({v}) SELECT {one}
           WHERE NOT EXISTS (SELECT FROM {values} AS {value} WHERE {value}.{v} = {one})
          ON CONFLICT ({v}) DO NOTHING;
        EXCEPTION WHEN program_limit_exceeded THEN
          {names} := pg_catalog.array_remove({names}, {one});
        END;
      END LOOP;
    END;
  END LOOP;"""
        ).format(
            **self.words(),
            tries=sql.Literal(_TRIES),
            names=_NAMES,
            held=_HELD,
            one=_ONE,
        )

    def fill_function(self) -> sql.Composable:
        """
        Return the function that has the links of rows be what their arrays hold.

        It is given keys and elements, a pair for each, of rows that are locked: so
        neither side changes. It looks for links too many where `$1` says so.
        """
        places = [f"_{number}" for number, _ in enumerate(self.key, 1)]
        given = sql.SQL("ROWS FROM ({}) AS {} ({}, _e)").format(
            sql.SQL(", ").join(
                type_name(f"pg_catalog.unnest(${number})")
                for number in range(2, len(places) + 3)
            ),
            _TOUCHED,
            listed(places),
        )
        keys = sql.SQL(" AND ").join(
            sql.SQL("{}.{} {} {}.{}").format(
                LINK,
                sql.Identifier(name),
                type_name(k.equal),
                _TOUCHED,
                sql.Identifier(place),
            )
            for (name, k), place in zip(self.key.items(), places, strict=True)
        )
        return sql.SQL(
            """
#variable_conflict use_column
DECLARE
  {names} {element}[];
  {one} {element};
  {held} bigint;
BEGIN
  -- A setting of the function itself would take a superuser (CREATE FUNCTION … SET).
  PERFORM pg_catalog.set_config({filling}, 'on', true);
  IF $1 THEN
    DELETE FROM {links} AS {link} USING {values} AS {value}
     WHERE {linked} AND EXISTS (SELECT FROM {given} WHERE {keys})
       AND NOT EXISTS (SELECT FROM {given} WHERE {keys} AND {touched}._e = {value}.{v});
  END IF;
  {names} := ARRAY(
    SELECT DISTINCT {touched}._e FROM {given}
     WHERE {touched}._e IS NOT NULL ORDER BY {touched}._e);
  {taken}
  INSERT INTO {links} ({key}, {reference})
    SELECT {places}, {value}.{number}
      FROM {given} JOIN {values} AS {value} ON {value}.{v} = {touched}._e
    ON CONFLICT ({key}, {reference}) DO NOTHING;
  PERFORM pg_catalog.set_config({filling}, 'off', true);
END
"""
        ).format(
            **self.words(),
            filling=sql.Literal(self.filling),
            names=_NAMES,
            one=_ONE,
            held=_HELD,
            element=type_name(self.element),
            given=given,
            keys=keys,
            touched=_TOUCHED,
            places=columns_of(_TOUCHED, places),
            taken=self._taken(),
        )
