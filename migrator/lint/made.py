"""What the revision has made, and those before it that go out with it.

No release in use knows any of it: it breaks for nobody, and nobody waits for it.
"""

import re
from dataclasses import dataclass, field

from migrator.lint import statements as st
from migrator.lint.statements import NewColumn, NewConstraint, Ref, Statement

# What a text creates that no statement tells of, by its name without the schema.
_CREATED = re.compile(
    r"\s*CREATE\s+(?:OR\s+REPLACE\s+)?(?:TYPE|DOMAIN|SCHEMA|(?:MATERIALIZED\s+)?VIEW)"
    r'\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:"?\w+"?\s*\.\s*)?"?(?P<name>\w+)"?',
    re.IGNORECASE,
)
# The same of what it drops.
_DROPPED = re.compile(
    r"\s*DROP\s+(?:MATERIALIZED\s+)?\w+\s+(?:IF\s+EXISTS\s+)?"
    r'(?:"?\w+"?\s*\.\s*)?"?(?P<name>\w+)"?',
    re.IGNORECASE,
)


def word_of(statement: Statement) -> str | None:
    """Return the type, domain, schema or view that a text creates, without schema."""
    found = _CREATED.match(statement.sql)
    return None if found is None else found["name"]


@dataclass(slots=True)
class Made:
    """
    Things by their names, as statements give them.

    Args:
        tables: also views.
        columns: added to tables that were there, by table and name.
        constraints: the same of constraints.
        indexes: on any table, by their names without the schema.
        words: types, domains, schemas and views, by their names without the schema.
        gone: what was there and was dropped: views, columns, triggers and so on, by
            their names without the schema.
    """

    tables: set[Ref] = field(default_factory=set[Ref])
    columns: dict[tuple[Ref, str], NewColumn] = field(
        default_factory=dict[tuple[Ref, str], NewColumn]
    )
    constraints: dict[tuple[Ref, str | None], NewConstraint] = field(
        default_factory=dict[tuple[Ref, str | None], NewConstraint]
    )
    indexes: dict[str, st.CreateIndex] = field(
        default_factory=dict[str, st.CreateIndex]
    )
    words: set[str] = field(default_factory=set[str])
    gone: set[str] = field(default_factory=set[str])

    def copy(self) -> "Made":
        """Return the same, to go on with."""
        return Made(
            set(self.tables),
            dict(self.columns),
            dict(self.constraints),
            dict(self.indexes),
            set(self.words),
            set(self.gone),
        )

    def passed(self, statement: Statement, *, is_new: bool = False) -> None:
        """
        Note a statement.

        Args:
            statement: the next one.
            is_new: whether a view that it may replace was not there before.
        """
        if (word := word_of(statement)) is not None:
            self.words.add(word)
        if dropped := _DROPPED.match(statement.sql):
            self.gone.add(dropped["name"])
        match statement:
            case st.CreateTable(table=table):
                self.tables.add(table)
            case st.CreateView(view=view):
                if not statement.replaces or is_new:
                    self.tables.add(view)
            case st.DropTable(table=table):
                self.tables.discard(table)
            case st.DropObject(name=name):
                self.tables.discard(name)
                self.gone.add(name.name)
            case st.DropColumn(column=name):
                self.gone.add(name)
            case st.Carried(pattern=pattern):
                final = None if pattern is None else pattern.final()
                self.gone |= set() if final is None else set(final.gone)
            case st.RenameTable(table=table, to=to) if table in self.tables:
                self.tables.add(Ref(to, table.schema))
            case st.MoveTable(table=table, to=to) if table in self.tables:
                self.tables.add(Ref(table.name, to))
            case st.AddColumn(table=table, column=column):
                self.columns.setdefault((table, column.name), column)
            case st.AddConstraint(table=table, constraint=constraint):
                self.constraints[table, constraint.name] = constraint
            case st.CreateIndex(name=name) if name is not None:
                self.indexes[name] = statement
            case _:
                pass
