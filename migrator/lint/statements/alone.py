"""Which statements refuse a transaction."""

import re

from migrator.lint.statements.parts import Other, Statement
from migrator.lint.statements.tables import (
    CreateIndex,
    DetachPartition,
    DropIndex,
    Reindex,
    Rewrite,
    RewriteAll,
)

# Of what has no form here.
_ALONE = re.compile(
    r"\s*(VACUUM|(CREATE|DROP)\s+(DATABASE|TABLESPACE)|ALTER\s+SYSTEM)\b", re.IGNORECASE
)


def is_alone(statement: Statement) -> bool:
    """
    Tell whether a statement refuses to run inside a transaction.

    Source: PostgreSQL manual, the pages of these commands.
    """
    match statement:
        case CreateIndex() | DropIndex() | DetachPartition():
            return statement.concurrently
        case Reindex(of=of):
            return statement.concurrently or of not in ("INDEX", "TABLE")
        case Rewrite(how=how):
            return how == "VACUUM FULL"
        case RewriteAll():
            return True
        case Other():
            return _ALONE.match(statement.sql) is not None
        case _:
            return False
