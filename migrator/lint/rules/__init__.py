"""All rules; a new one is a file here and a line in `RULES`.

Codes: ZD1.. columns, ZD2.. constraints, ZD3.. indexes, ZD4.. tables, ZD5.. types,
views and functions, ZD6.. rows and transactions, ZD9.. the revision itself.
"""

from migrator.lint.rule import Rule
from migrator.lint.rules.create_index import CreateIndex
from migrator.lint.rules.drop_column import DropColumn
from migrator.lint.rules.set_not_null import SetNotNull

#: In the order of their codes.
RULES: tuple[Rule, ...] = (
    SetNotNull(),
    DropColumn(),
    CreateIndex(),
)
