"""The catalogue: one pattern per file, one line each here."""

from migrator.kernels.index_definition import Key
from migrator.pattern import Pattern
from migrator.patterns.add_check import AddCheck
from migrator.patterns.add_column import AddColumn
from migrator.patterns.add_enum_value import AddEnumValue
from migrator.patterns.add_exclusion import AddExclusion
from migrator.patterns.add_foreign_key import AddForeignKey
from migrator.patterns.add_primary_key import AddPrimaryKey
from migrator.patterns.add_unique import AddUnique
from migrator.patterns.attach_partition import AttachPartition
from migrator.patterns.change_column_type import ChangeColumnType
from migrator.patterns.change_domain import ChangeDomain
from migrator.patterns.change_primary_key import ChangePrimaryKey
from migrator.patterns.create_index import CreateIndex
from migrator.patterns.create_table import CreateTable
from migrator.patterns.custom import Custom, Sql
from migrator.patterns.detach_partition import DetachPartition
from migrator.patterns.drop_column import DropColumn
from migrator.patterns.drop_constraint import DropConstraint
from migrator.patterns.drop_default import DropDefault
from migrator.patterns.drop_index import DropIndex
from migrator.patterns.drop_not_null import DropNotNull
from migrator.patterns.drop_table import DropTable
from migrator.patterns.evolve_json import EvolveJson
from migrator.patterns.extract_table import ExtractTable
from migrator.patterns.merge_columns import MergeColumns
from migrator.patterns.merge_tables import MergeTables
from migrator.patterns.move_column import MoveColumn
from migrator.patterns.move_to_schema import MoveToSchema
from migrator.patterns.partition_table import PartitionTable
from migrator.patterns.rebuild_table import RebuildTable
from migrator.patterns.refresh_materialized_view import RefreshMaterializedView
from migrator.patterns.reindex import Reindex
from migrator.patterns.remove_enum_value import RemoveEnumValue
from migrator.patterns.rename_column import RenameColumn
from migrator.patterns.rename_constraint import RenameConstraint
from migrator.patterns.rename_enum_value import RenameEnumValue
from migrator.patterns.rename_table import RenameTable
from migrator.patterns.replace_check import ReplaceCheck
from migrator.patterns.replace_foreign_key import ReplaceForeignKey
from migrator.patterns.replace_function import ReplaceFunction
from migrator.patterns.replace_index import ReplaceIndex
from migrator.patterns.replace_view import ReplaceView
from migrator.patterns.set_default import SetDefault
from migrator.patterns.set_not_null import SetNotNull
from migrator.patterns.set_parameter import SetParameter
from migrator.patterns.split_column import SplitColumn
from migrator.patterns.split_table import SplitTable
from migrator.patterns.transform_column import TransformColumn

CATALOGUE: tuple[type[Pattern], ...] = (
    AddCheck,
    AddColumn,
    AddEnumValue,
    AddExclusion,
    AddForeignKey,
    AddPrimaryKey,
    AddUnique,
    AttachPartition,
    ChangeColumnType,
    ChangeDomain,
    ChangePrimaryKey,
    CreateIndex,
    CreateTable,
    Custom,
    DetachPartition,
    DropColumn,
    DropConstraint,
    DropDefault,
    DropIndex,
    DropNotNull,
    DropTable,
    EvolveJson,
    ExtractTable,
    MergeColumns,
    MergeTables,
    MoveColumn,
    MoveToSchema,
    PartitionTable,
    RebuildTable,
    RefreshMaterializedView,
    Reindex,
    RemoveEnumValue,
    RenameColumn,
    RenameConstraint,
    RenameEnumValue,
    RenameTable,
    ReplaceCheck,
    ReplaceForeignKey,
    ReplaceFunction,
    ReplaceIndex,
    ReplaceView,
    SetDefault,
    SetNotNull,
    SetParameter,
    SplitColumn,
    SplitTable,
    TransformColumn,
)

__all__ = [
    "CATALOGUE",
    "AddCheck",
    "AddColumn",
    "AddEnumValue",
    "AddExclusion",
    "AddForeignKey",
    "AddPrimaryKey",
    "AddUnique",
    "AttachPartition",
    "ChangeColumnType",
    "ChangeDomain",
    "ChangePrimaryKey",
    "CreateIndex",
    "CreateTable",
    "Custom",
    "DetachPartition",
    "DropColumn",
    "DropConstraint",
    "DropDefault",
    "DropIndex",
    "DropNotNull",
    "DropTable",
    "EvolveJson",
    "ExtractTable",
    "Key",
    "MergeColumns",
    "MergeTables",
    "MoveColumn",
    "MoveToSchema",
    "PartitionTable",
    "RebuildTable",
    "RefreshMaterializedView",
    "Reindex",
    "RemoveEnumValue",
    "RenameColumn",
    "RenameConstraint",
    "RenameEnumValue",
    "RenameTable",
    "ReplaceCheck",
    "ReplaceForeignKey",
    "ReplaceFunction",
    "ReplaceIndex",
    "ReplaceView",
    "SetDefault",
    "SetNotNull",
    "SetParameter",
    "SplitColumn",
    "SplitTable",
    "Sql",
    "TransformColumn",
]
