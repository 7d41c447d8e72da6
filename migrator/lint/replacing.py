"""Which statements a change takes the place of, whole.

A safe form may also be advice: an index first, before a foreign key comes. What stands
here does all that the statement would have done.
"""

from typing import Any

from alembic.operations.ops import MigrateOperation

from migrator import patterns as p
from migrator.lint import statements as st
from migrator.lint.source import call
from migrator.pattern import Pattern

# Statements, and the changes that do the same to the same thing.
_SAME: dict[type[st.Statement], tuple[type[Pattern], ...]] = {
    st.AddConstraint: (
        p.AddCheck,
        p.AddExclusion,
        p.AddForeignKey,
        p.AddPrimaryKey,
        p.AddUnique,
    ),
    st.AddColumn: (p.AddColumn,),
    st.AddEnumValue: (p.AddEnumValue,),
    st.ChangeType: (p.ChangeColumnType,),
    st.CreateIndex: (p.CreateIndex,),
    st.DropColumn: (p.DropColumn,),
    st.DropConstraint: (p.DropConstraint,),
    st.DropDefault: (p.DropDefault,),
    st.DropIndex: (p.DropIndex,),
    st.DropNotNull: (p.DropNotNull,),
    st.DropTable: (p.DropTable,),
    st.MoveTable: (p.MoveToSchema,),
    st.RefreshView: (p.RefreshMaterializedView,),
    st.Reindex: (p.Reindex,),
    st.RenameColumn: (p.RenameColumn,),
    st.RenameConstraint: (p.RenameConstraint,),
    st.RenameEnumValue: (p.RenameEnumValue,),
    st.RenameTable: (p.RenameTable,),
    st.SetDefault: (p.SetDefault,),
    st.SetNotNull: (p.SetNotNull,),
}

# Options of Alembic's operations that the statements here hold, and so do changes; of
# what is beside them, nothing is known.
_KNOWN = frozenset(
    {
        "deferrable",
        "initially",
        "inline_primary_key",
        "inline_references",
        "match",
        "ondelete",
        "onupdate",
        "postgresql_concurrently",
        "postgresql_include",
        "postgresql_not_valid",
        "postgresql_nulls_not_distinct",
        "postgresql_ops",
        "postgresql_using",
        "postgresql_where",
        "postgresql_with",
    }
)


def is_whole(
    statement: st.Statement, operation: MigrateOperation | None, pattern: Pattern
) -> bool:
    """
    Tell whether a change does all that a statement would have done.

    Args:
        statement: what the revision does.
        operation: as Alembic has it; None for others.
        pattern: the change.
    """
    if not isinstance(pattern, _SAME.get(type(statement), ())):
        return False
    options: dict[str, Any] = getattr(operation, "kw", None) or {}
    if any(v not in (None, False) for k, v in options.items() if k not in _KNOWN):
        return False
    if isinstance(statement, st.CreateIndex) and statement.tablespace:
        return False
    # What a person has to fill in.
    return "…" not in call(pattern)
