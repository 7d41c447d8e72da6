"""What autogenerate compares besides what Alembic does: checks, and values of enums."""

import sys
from typing import Any

from alembic.autogenerate import comparators
from alembic.autogenerate.api import AutogenContext
from alembic.util import DispatchPriority, PriorityDispatchResult

#: The options of a context that say what is compared.
CHECKS = "migrator_compare_checks"
ENUMS = "migrator_compare_enums"

#: Compares values by itself, where it is loaded.
_PLUGIN = "alembic_postgresql_enum"


def _is_wanted(context: AutogenContext, option: str) -> bool:
    """Tell whether a comparison is to be made in this context."""
    opts = context.opts
    return (
        bool(opts.get(option))
        and context.dialect.name == "postgresql"
        # In an environment of several databases all stays as Alembic has it.
        and opts.get("upgrade_token", "upgrades") == "upgrades"
    )


@comparators.dispatch_for("table", priority=DispatchPriority.LAST)
def _table(context: AutogenContext, *given: Any) -> PriorityDispatchResult:
    if _is_wanted(context, CHECKS):
        from migrator.alembic import checks

        checks.note(context, *given)
    return PriorityDispatchResult.CONTINUE


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST)
def _schema(context: AutogenContext, *given: Any) -> PriorityDispatchResult:
    if _is_wanted(context, CHECKS):
        from migrator.alembic import checks

        checks.compare(context, *given)
    if _is_wanted(context, ENUMS) and _PLUGIN not in sys.modules:
        from migrator.alembic import labels

        labels.compare(context, *given)
    return PriorityDispatchResult.CONTINUE
