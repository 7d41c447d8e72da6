"""Indexes over a column, and their like over another one in its place.

Where an expression or a predicate reads the column, no text is edited: on a table like
theirs in pg_temp the server renames the column, and spells what it has there again.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts, Index, Table
from migrator.kernels import indexes
from migrator.plan import Probe, Step, render, type_name

_TRIAL = sql.SQL("pg_temp.migrator_trial")


def of_column(table: Table, column: str, *, bare: bool = False) -> tuple[Index, ...]:
    """
    Return the valid indexes of a table that a column is in.

    Args:
        table: the table.
        column: the column.
        bare: whether those are left out that an expression or predicate reads it for.
    """
    return tuple(
        i
        for i in table.indexes
        if i.valid and column in i.columns and not (bare and not by_name(i, column))
    )


def by_name(index: Index, *columns: str) -> bool:
    """Tell whether no expression, and no predicate, reads one of the columns."""
    if set(columns).isdisjoint(index.columns):
        return True
    has_names = all(k.name for k in index.keys)
    return has_names and set(columns).isdisjoint(index.mentions)


def asked(facts: Facts, *given: Mapping[str, str]) -> Mapping[str, Probe]:
    """
    Return the questions how the server spells indexes over other columns.

    Args:
        facts: of the table; its leaves are asked about as well.
        given: columns, and the ones in their place; each by itself.
    """
    return {
        _key(index, columns): _spelling(table, index, columns)
        for columns in given
        for table in (facts.table, *facts.table.partitions)
        for index in table.indexes
        if index.valid and not by_name(index, *columns)
    }


def over(facts: Facts, index: Index, columns: Mapping[str, str]) -> Index | None:
    """
    Return an index as it is over other columns.

    Args:
        facts: of its table, with what the server said to `asked`.
        index: the index.
        columns: for each column that is replaced, the one in its place.

    Returns:
        None where the server does not spell it.
    """
    if by_name(index, *columns):
        return indexes.renamed(index, columns)
    said = facts.texts.get(_key(index, columns))
    if said is None:
        return None
    spelt, predicate = json.loads(said)
    return replace(index, spelt=spelt, predicate=predicate)


def copied(
    facts: Facts, old: str, new: str, *, unique: bool = True
) -> tuple[Step, ...]:
    """
    Return the builds of copies of a column's indexes, over another column.

    Args:
        facts: of the table, with what the server said to `asked`.
        old: the column.
        new: the other one.
        unique: whether the copies of unique ones are, for ON CONFLICT.

    Each leaf of a partitioned table gets its own: an index of the parent cannot be
    built concurrently, and queries use those of the leaves. Two columns with the same
    values need one key. A copy is unique for ON CONFLICT alone: that of a deferrable
    key would be checked at once, and one over periods can only come with its key.

    Source: PostgreSQL manual, CREATE TABLE (DEFERRABLE; WITHOUT OVERLAPS).
    """
    steps: list[Step] = []
    for leaf in facts.leaves:
        copies = [
            (copy_name(leaf.table, index, facts.tag), index, like)
            for index in of_column(leaf.table, old)
            if (like := over(leaf, index, {old: new})) is not None
        ]
        for number, (name, index, like) in enumerate(copies, 1):
            held = replace(like, unique=unique and index.arbitrates)
            step = f"copy_index_{number}"
            steps.append(indexes.build_as(step, leaf.table, name, held))
        steps += indexes.analyzed(
            leaf.table.name,
            [(name, index) for name, index, _ in copies],
            named=leaf.table.step,
            no_reverse="it goes with the copies",
        )
    return tuple(steps)


def copy_name(table: Table, index: Index, tag: str) -> str:
    """Return the name of the copy of an index."""
    return names.owned("index", index.name, indexes.table_tag(table, tag, index.name))


def copies(
    facts: Facts, old: str, new: str, *, bare: bool
) -> tuple[tuple[Table, Index, str], ...]:
    """
    Return the indexes of a column with the names of their copies over another one.

    An original that was renamed since, as by the drop of another change that shares it,
    is told by what it is on.

    Args:
        facts: of the table.
        old: the column.
        new: the other one.
        bare: see `of_column`.

    Returns:
        Each with its table; there need be no copy of the name.

    Raises:
        Refused: a copy would keep its name, since its original is not found.
    """
    found: list[tuple[Table, Index, str]] = []
    for leaf in facts.leaves:
        table = leaf.table
        # A unique one may stand over the other column already, beside its copy.
        known = (*of_column(table, old), *of_column(table, new))
        named = {copy_name(table, i, facts.tag) for i in known}
        spare = [
            i
            for i in of_column(table, new)
            if i.name not in named and _is_own(table, i, facts.tag)
        ]
        for index in of_column(table, old, bare=bare):
            name = copy_name(table, index, facts.tag)
            alike = [i for i in spare if _is_like(i, index, {old: new})]
            if alike and table.index(name) is None:
                spare.remove(alike[0])
                name = alike[0].name
            found.append((table, index, name))
        if spare:
            name = spare[0].name
            whole = sql.Identifier(table.name.schema, name).as_string()
            raise Refused(
                f'Index "{name}" of table {table.name} is the copy of one that was'
                " dropped since, or has another copy by now, and would keep this name.",
                next=f"give it another name (ALTER INDEX {whole} RENAME TO …), or drop"
                f" it where nothing needs it (DROP INDEX CONCURRENTLY {whole}); then"
                " run the same command again.",
            )
    return tuple(found)


def _is_own(table: Table, index: Index, tag: str) -> bool:
    """Tell whether an index is a copy of this change, whose name is not cut."""
    stem = index.name.removeprefix(f"{names.OWNED}index_").rpartition("_")[0]
    return index.name == copy_name(table, replace(index, name=stem), tag)


def _is_like(copy: Index, index: Index, columns: Mapping[str, str]) -> bool:
    """Tell whether an index is what another one would be over other columns."""

    def told(one: Index, given: Mapping[str, str]) -> tuple[object, ...]:
        keys = [(given.get(k.name, k.name), k.options) for k in one.keys]
        include = [given.get(c, c) for c in one.include]
        return (one.method, keys, include, one.nulls_not_distinct, one.predicate)

    plain = by_name(index, *columns) and all(k.name for k in index.keys)
    return plain and told(copy, {}) == told(index, columns)


def _key(index: Index, columns: Mapping[str, str]) -> str:
    # Of what is spelt alike on all partitions, the server is asked once.
    return json.dumps(("index", index.spelt, index.predicate, sorted(columns.items())))


def _spelling(table: Table, index: Index, columns: Mapping[str, str]) -> Probe:
    bare = replace(index, tablespace=None)
    statements = (
        sql.SQL("CREATE TEMP TABLE migrator_trial (LIKE {})").format(
            table.name.identifier
        ),
        sql.SQL("CREATE INDEX migrator_spelt ON {} {}").format(
            _TRIAL, type_name(bare.definition)
        ),
        # Of what takes their place, some may be there already.
        *(
            sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
                _TRIAL, sql.Identifier(new)
            )
            for new in columns.values()
        ),
        *(
            sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                _TRIAL, sql.Identifier(old), sql.Identifier(new)
            )
            for old, new in columns.items()
        ),
        sql.SQL("SET LOCAL search_path = ''"),
    )
    # A function of another schema is spelt with it, by whichever path of a session.
    question = sql.SQL(
        "SELECT pg_catalog.json_build_array(pg_catalog.left(spelt.whole,"
        " pg_catalog.length(spelt.whole) - pg_catalog.length("
        "COALESCE(' WHERE ' || spelt.rows, ''))), spelt.rows)::text FROM ("
        "SELECT pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef(indexrelid),"
        " '^CREATE INDEX migrator_spelt ON [^ ]+ ', '') AS whole,"
        " pg_catalog.pg_get_expr(indpred, indrelid) AS rows FROM pg_catalog.pg_index"
        " WHERE indexrelid = 'pg_temp.migrator_spelt'::pg_catalog.regclass) AS spelt"
    )
    return Probe(
        statements=tuple(map(render, statements)),
        question=render(question),
        otherwise="",
    )
