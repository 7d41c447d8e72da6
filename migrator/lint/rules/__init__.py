"""All rules; a new one is a file here and a line in `RULES`.

Codes: ZD1.. columns, ZD2.. constraints, ZD3.. indexes, ZD4.. tables, ZD5.. types,
views and functions, ZD6.. rows and transactions, ZD9.. the revision itself.
"""

from migrator.lint.rule import Rule
from migrator.lint.rules.add_check import AddCheck
from migrator.lint.rules.add_enum_value import AddEnumValue
from migrator.lint.rules.add_exclusion import AddExclusion
from migrator.lint.rules.add_foreign_key import AddForeignKey
from migrator.lint.rules.add_identity import AddIdentity
from migrator.lint.rules.add_primary_key import AddPrimaryKey
from migrator.lint.rules.add_unique import AddUnique
from migrator.lint.rules.attach_partition import AttachPartition
from migrator.lint.rules.change_domain import ChangeDomain
from migrator.lint.rules.change_policy import ChangePolicy
from migrator.lint.rules.change_rows import ChangeRows
from migrator.lint.rules.change_trigger import ChangeTrigger
from migrator.lint.rules.change_type import ChangeType
from migrator.lint.rules.change_type_check import ChangeTypeCheck
from migrator.lint.rules.change_type_index import ChangeTypeIndex
from migrator.lint.rules.change_type_used import ChangeTypeUsed
from migrator.lint.rules.code_block import CodeBlock
from migrator.lint.rules.column_check import ColumnCheck
from migrator.lint.rules.column_domain import ColumnDomain
from migrator.lint.rules.column_foreign_key import ColumnForeignKey
from migrator.lint.rules.column_generated import ColumnGenerated
from migrator.lint.rules.column_json import ColumnJson
from migrator.lint.rules.column_not_null import ColumnNotNull
from migrator.lint.rules.column_serial import ColumnSerial
from migrator.lint.rules.column_unique import ColumnUnique
from migrator.lint.rules.column_volatile_default import ColumnVolatileDefault
from migrator.lint.rules.convoy import Convoy
from migrator.lint.rules.create_index import CreateIndex
from migrator.lint.rules.create_partition import CreatePartition
from migrator.lint.rules.detach_partition import DetachPartition
from migrator.lint.rules.drop_column import DropColumn
from migrator.lint.rules.drop_constraint import DropConstraint
from migrator.lint.rules.drop_default import DropDefault
from migrator.lint.rules.drop_foreign_key import DropForeignKey
from migrator.lint.rules.drop_index import DropIndex
from migrator.lint.rules.drop_not_null import DropNotNull
from migrator.lint.rules.drop_schema import DropSchema
from migrator.lint.rules.drop_table import DropTable
from migrator.lint.rules.enum_value_used import EnumValueUsed
from migrator.lint.rules.foreign_key_index import ForeignKeyIndex
from migrator.lint.rules.foreign_key_type import ForeignKeyType
from migrator.lint.rules.foreign_keys_together import ForeignKeysTogether
from migrator.lint.rules.integer_key import IntegerKey
from migrator.lint.rules.invalid_index import InvalidIndex
from migrator.lint.rules.lock_table import LockTable
from migrator.lint.rules.lock_timeout import LockTimeout
from migrator.lint.rules.move_table import MoveTable
from migrator.lint.rules.not_in_transaction import NotInTransaction
from migrator.lint.rules.partitioned_index import PartitionedIndex
from migrator.lint.rules.refresh_view import RefreshView
from migrator.lint.rules.reindex import Reindex
from migrator.lint.rules.rename_column import RenameColumn
from migrator.lint.rules.rename_enum_value import RenameEnumValue
from migrator.lint.rules.rename_schema import RenameSchema
from migrator.lint.rules.rename_table import RenameTable
from migrator.lint.rules.replaced_index import ReplacedIndex
from migrator.lint.rules.rewrite_table import RewriteTable
from migrator.lint.rules.rows_beside_ddl import RowsBesideDdl
from migrator.lint.rules.set_default import SetDefault
from migrator.lint.rules.set_expression import SetExpression
from migrator.lint.rules.set_not_null import SetNotNull
from migrator.lint.rules.transaction_text import TransactionText
from migrator.lint.rules.truncate import Truncate
from migrator.lint.rules.validate_together import ValidateTogether

#: In the order of their codes.
RULES: tuple[Rule, ...] = (
    ColumnNotNull(),
    ColumnVolatileDefault(),
    ColumnSerial(),
    ColumnGenerated(),
    ColumnDomain(),
    ColumnCheck(),
    ColumnUnique(),
    SetNotNull(),
    ColumnForeignKey(),
    ColumnJson(),
    DropColumn(),
    RenameColumn(),
    DropNotNull(),
    ChangeType(),
    ChangeTypeCheck(),
    ChangeTypeIndex(),
    ChangeTypeUsed(),
    SetExpression(),
    SetDefault(),
    DropDefault(),
    AddIdentity(),
    IntegerKey(),
    AddForeignKey(),
    ForeignKeysTogether(),
    ForeignKeyIndex(),
    ForeignKeyType(),
    AddCheck(),
    ValidateTogether(),
    AddUnique(),
    AddPrimaryKey(),
    AddExclusion(),
    DropForeignKey(),
    DropConstraint(),
    CreateIndex(),
    PartitionedIndex(),
    DropIndex(),
    Reindex(),
    NotInTransaction(),
    InvalidIndex(),
    ReplacedIndex(),
    DropTable(),
    RenameTable(),
    MoveTable(),
    RenameSchema(),
    DropSchema(),
    Truncate(),
    AttachPartition(),
    CreatePartition(),
    DetachPartition(),
    RewriteTable(),
    ChangeTrigger(),
    ChangePolicy(),
    EnumValueUsed(),
    AddEnumValue(),
    RenameEnumValue(),
    ChangeDomain(),
    RefreshView(),
    CodeBlock(),
    ChangeRows(),
    RowsBesideDdl(),
    Convoy(),
    LockTimeout(),
    LockTable(),
    TransactionText(),
)
