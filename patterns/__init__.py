"""The catalogue: one pattern per file, one line each here."""

from migrator.pattern import Pattern
from migrator.patterns.add_check import AddCheck
from migrator.patterns.add_column import AddColumn
from migrator.patterns.add_enum_value import AddEnumValue
from migrator.patterns.add_foreign_key import AddForeignKey
from migrator.patterns.add_primary_key import AddPrimaryKey
from migrator.patterns.add_unique import AddUnique
from migrator.patterns.change_column_type import ChangeColumnType
from migrator.patterns.change_primary_key import ChangePrimaryKey
from migrator.patterns.create_index import CreateIndex
from migrator.patterns.custom import Custom, Sql
from migrator.patterns.drop_column import DropColumn
from migrator.patterns.drop_constraint import DropConstraint
from migrator.patterns.drop_default import DropDefault
from migrator.patterns.drop_index import DropIndex
from migrator.patterns.drop_not_null import DropNotNull
from migrator.patterns.drop_table import DropTable
from migrator.patterns.merge_columns import MergeColumns
from migrator.patterns.rename_column import RenameColumn
from migrator.patterns.rename_constraint import RenameConstraint
from migrator.patterns.set_default import SetDefault
from migrator.patterns.set_not_null import SetNotNull
from migrator.patterns.split_column import SplitColumn
from migrator.patterns.transform_column import TransformColumn

CATALOGUE: tuple[type[Pattern], ...] = (
    AddCheck,
    AddColumn,
    AddEnumValue,
    AddForeignKey,
    AddPrimaryKey,
    AddUnique,
    ChangeColumnType,
    ChangePrimaryKey,
    CreateIndex,
    Custom,
    DropColumn,
    DropConstraint,
    DropDefault,
    DropIndex,
    DropNotNull,
    DropTable,
    MergeColumns,
    RenameColumn,
    RenameConstraint,
    SetDefault,
    SetNotNull,
    SplitColumn,
    TransformColumn,
)

__all__ = [
    "CATALOGUE",
    "AddCheck",
    "AddColumn",
    "AddEnumValue",
    "AddForeignKey",
    "AddPrimaryKey",
    "AddUnique",
    "ChangeColumnType",
    "ChangePrimaryKey",
    "CreateIndex",
    "Custom",
    "DropColumn",
    "DropConstraint",
    "DropDefault",
    "DropIndex",
    "DropNotNull",
    "DropTable",
    "MergeColumns",
    "RenameColumn",
    "RenameConstraint",
    "SetDefault",
    "SetNotNull",
    "SplitColumn",
    "Sql",
    "TransformColumn",
]
