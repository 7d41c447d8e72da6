"""Steps, footprints and plans as plain data: for the ledger, and for `--json`.

What an earlier release has written is read as well.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from migrator.names import TableName
from migrator.plan import (
    Action,
    Autocommit,
    ChunkedCheck,
    ChunkedUpdate,
    Chunking,
    Footprint,
    Keyset,
    Lock,
    Phase,
    Plan,
    Refusal,
    Step,
    TableLock,
    Transaction,
    Upkeep,
    Work,
)

_KINDS: dict[str, type[Work]] = {
    "transaction": Transaction,
    "autocommit": Autocommit,
    "chunked_update": ChunkedUpdate,
    "chunked_check": ChunkedCheck,
}
_KIND_OF = {cls: kind for kind, cls in _KINDS.items()}


def work_to_dict(work: Work) -> dict[str, Any]:
    """Return a work as plain data, for the ledger and for `--json`."""
    return {"kind": _KIND_OF[type(work)], **asdict(work)}


def work_from_dict(data: Mapping[str, Any]) -> Work:
    """Return the work that `work_to_dict` wrote."""
    values = dict(data)
    cls = _KINDS[values.pop("kind")]
    if values.get("table"):
        values["table"] = TableName(**values["table"])
    if values.get("root"):
        values["root"] = TableName(**values["root"])
    if "statements" in values:
        values["statements"] = tuple(values["statements"])
    # Ledgers of earlier releases do not have it.
    if "guard_tables" in values:
        values["guard_tables"] = tuple(TableName(**t) for t in values["guard_tables"])
    if "chunking" in values:
        values["chunking"] = _chunking(values["chunking"])
    if values.get("upkeep"):
        values["upkeep"] = Upkeep(**values["upkeep"])
    if "withdraw" in values:
        values["withdraw"] = tuple(values["withdraw"])
    for field in ("refusals", "at_first"):
        if field in values:
            values[field] = tuple(Refusal(**r) for r in values[field])
    for field in ("also", "outlives"):
        if field in values:
            values[field] = tuple(map(_lock, values[field]))
    values["lock"] = Lock(values["lock"])
    return cls(**values)


def _lock(data: Mapping[str, Any]) -> TableLock:
    return TableLock(
        table=TableName(**data["table"]),
        lock=Lock(data["lock"]),
        # Ledgers of earlier releases do not have them.
        first=data.get("first", False),
        if_there=data.get("if_there", False),
    )


def _chunking(data: Mapping[str, Any]) -> Chunking:
    keyset = data.get("keyset")
    return Chunking(**{**data, "keyset": Keyset(**keyset) if keyset else None})


def footprint_to_dict(footprint: Footprint) -> dict[str, Any]:
    """Return a footprint as plain data."""
    columns = None if footprint.columns is None else sorted(footprint.columns)
    return {
        "table": asdict(footprint.table),
        "columns": columns,
        "made": footprint.made,
        "needed": footprint.needed,
    }


def footprint_from_dict(data: Mapping[str, Any]) -> Footprint:
    """Return the footprint that `footprint_to_dict` wrote."""
    columns = None if data["columns"] is None else frozenset(data["columns"])
    return Footprint(
        table=TableName(**data["table"]),
        columns=columns,
        # Ledgers of earlier releases do not have them.
        made=data.get("made", False),
        needed=data.get("needed", False),
    )


def step_to_dict(step: Step) -> dict[str, Any]:
    """Return a step as plain data."""
    return {
        "name": step.name,
        "work": work_to_dict(step.work),
        "reverse": [work_to_dict(action) for action in step.reverse],
        "no_reverse": step.no_reverse,
        "loses": step.loses,
        "parked": work_to_dict(step.parked) if step.parked else None,
        "along": [work_to_dict(action) for action in step.along],
    }


def step_from_dict(data: Mapping[str, Any]) -> Step:
    """Return the step that `step_to_dict` wrote."""
    parked = work_from_dict(data["parked"]) if data["parked"] else None
    assert parked is None or isinstance(parked, Transaction)
    return Step(
        name=data["name"],
        work=work_from_dict(data["work"]),
        reverse=_actions(data["reverse"]),
        no_reverse=data["no_reverse"],
        loses=data["loses"],
        parked=parked,
        # Ledgers of earlier releases do not have it.
        along=_actions(data.get("along", ())),
    )


def _actions(given: Iterable[Mapping[str, Any]]) -> tuple[Action, ...]:
    found: list[Action] = []
    for item in given:
        action = work_from_dict(item)
        assert isinstance(action, Transaction | Autocommit)
        found.append(action)
    return tuple(found)


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data; `schema` is the version of this form."""
    return {
        "schema": 1,
        "change": plan.change,
        "title": plan.title,
        "kind": plan.kind,
        "table": asdict(plan.table),
        "estimated_rows": plan.rows,
        "size_bytes": plan.size_bytes,
        "new_release_from": plan.admission,
        "notices": [asdict(notice) for notice in plan.notices],
        "phases": {
            phase: [step_to_dict(step) for step in plan.steps(phase)] for phase in Phase
        },
    }
