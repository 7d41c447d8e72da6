"""Plans as data: nothing is lost on the way to the ledger and back."""

import json

import pytest

from migrator.facts import Column, Constraint, Facts, Index, IndexColumn, Table
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.patterns import (
    CATALOGUE,
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
    Sql,
    TransformColumn,
)
from migrator.plan import (
    Autocommit,
    Footprint,
    Lock,
    Phase,
    Plan,
    State,
    Step,
    Transaction,
    plan_to_json,
    step_from_dict,
    step_to_dict,
)

USERS = TableName("public", "users")
TEAMS = TableName("public", "teams")
FACTS = Facts(
    server_version=180000,
    tag="0123456789",
    others=(
        Table(
            name=TEAMS,
            oid=2,
            columns=(Column(name="name", type="text", not_null=True),),
            indexes=(
                Index(
                    name="teams_pkey",
                    method="btree",
                    keys=(IndexColumn(name="name"),),
                    unique=True,
                ),
            ),
        ),
    ),
    table=Table(
        name=USERS,
        oid=1,
        columns=(
            Column(name="name", type="text"),
            Column(name="price", type="numeric", image_equal=False),
            Column(name="mood", type="mood", values=("low", "high")),
            Column(name="state", type="text", not_null=True, default="'new'::text"),
            Column(name="code", type="integer", not_null=True, identity=True),
        ),
        indexes=(
            Index(name="by_name", method="btree", keys=(IndexColumn(name="name"),)),
            Index(
                name="codes",
                method="btree",
                keys=(IndexColumn(name="code"),),
                unique=True,
                columns=("code",),
            ),
        ),
        constraints=(
            Constraint(name="codes", kind="u", columns=("code",), index="codes"),
            Constraint(name="priced", kind="c", definition="CHECK ((price > 0))"),
            Constraint(name="one", kind="u", index="by_name", deferrable=True),
            Constraint(name="owned", kind="f", definition="", references=TEAMS),
        ),
    ),
)
PATTERNS: tuple[Pattern, ...] = (
    RenameColumn("users", "name", "full_name"),
    RenameColumn("users", "price", "cost"),
    AddColumn("users", "nick", "text"),
    AddColumn("users", "nick", "text", default="'x'"),
    AddColumn("users", "nick", "text", computed="upper(name)"),
    SetNotNull("users", "name"),
    SetNotNull("users", "name", fill="''"),
    SplitColumn("users", "name", {"first": ("text", "name")}, "first", type="text"),
    SplitColumn("users", "name", {"first": ("text", "name")}, "first", type="text"),
    DropColumn("users", "name", type="text"),
    SetDefault("users", "name", "'x'"),
    DropDefault("users", "state"),
    DropNotNull("users", "state"),
    DropIndex("users", "by_name"),
    AddEnumValue("users", "mood", "middle", after="low"),
    Custom("users", "own", at_expand=[Sql("SELECT 1", reverse="SELECT 2")]),
    Custom("users", "own", at_drop=[Sql("SELECT 1", reverse="SELECT 2")]),
    DropTable("users", create="CREATE TABLE users (name text)"),
    DropNotNull("users", "state", early=True, assured="copes"),
    ChangeColumnType("users", "name", "int", old_type="text", assured="tried"),
    ChangeColumnType("users", "name", "int", "number", old_type="text"),
    ChangePrimaryKey("users", "code", old_type="int", assured="tried"),
    TransformColumn("users", "name", "n", "text", "name", "n", old_type="text"),
    MergeColumns(
        "users",
        ["name", "price"],
        "both",
        "text",
        "name || price",
        {"name": "both", "price": "0"},
        types={"name": "text", "price": "numeric"},
    ),
    CreateIndex("users", ["name"], "by_name_2", where="name <> ''"),
    CreateIndex("users", ["name"], "by_name_3", unique=True),
    AddForeignKey("users", ["name"], "teams", ["name"], "users_team"),
    AddCheck("users", "named", "name <> ''"),
    DropConstraint("users", "priced"),
    DropConstraint("users", "one", assured="unused"),
    DropConstraint("users", "owned"),
    RenameConstraint("users", "priced", "prices"),
    AddUnique("users", ["name"], "one_name", nulls_not_distinct=True),
    AddUnique("users", ["price"], "one_price", deferrable="deferred"),
    AddPrimaryKey("users", ["name", "price"], "users_key"),
    AddCheck("users", "named", "name <> ''", enforce_early=True, assured="kept"),
)
NOTHING = Transaction(statements=("SELECT 1",))


def test_every_pattern_is_tried_here() -> None:
    """A pattern that is added to the catalogue has to be added above."""
    assert {type(p) for p in PATTERNS} == set(CATALOGUE)


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_steps_come_back_as_they_were_stored(pattern: Pattern) -> None:
    """A step read from the ledger is the step that was reviewed."""
    for phase in Phase:
        for step in pattern.steps(phase, FACTS):
            stored = json.dumps(step_to_dict(step))
            assert step_from_dict(json.loads(stored)) == step


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_rebuild_comes_back_as_it_was_stored(pattern: Pattern) -> None:
    """The steps of a rebuild go through the ledger as well."""
    steps = pattern.rebuild(FACTS)
    assert steps or not any(s.loses for s in pattern.drop(FACTS))
    assert [step_from_dict(step_to_dict(s)) for s in steps] == list(steps)


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_names_of_steps_are_unique_within_a_phase(pattern: Pattern) -> None:
    """A name tells a step within its phase."""
    for phase in Phase:
        found = [s.name for s in pattern.steps(phase, FACTS)]
        assert len(found) == len(set(found))


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_a_transaction_takes_its_strongest_lock_first(pattern: Pattern) -> None:
    """A step never waits for a lock while it holds a weaker one."""
    for phase in Phase:
        for step in pattern.steps(phase, FACTS):
            for action in (step.work, *step.reverse, step.parked):
                if isinstance(action, Transaction) and action.lock is not Lock.NONE:
                    also = [str(a.table) for a in action.also]
                    assert {a.lock for a in action.also} <= {action.lock}
                    tables = ", ".join(sorted([str(action.table), *also]))
                    assert action.statements[0] == (
                        f"LOCK TABLE {tables} IN {action.lock} MODE"
                    )


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_a_statement_that_scans_blocks_no_writer(pattern: Pattern) -> None:
    """What reads the whole table holds SHARE UPDATE EXCLUSIVE at most."""
    for phase in Phase:
        for step in pattern.steps(phase, FACTS):
            if isinstance(step.work, Autocommit) and step.work.scans:
                assert step.work.lock.rank <= Lock.SHARE_UPDATE_EXCLUSIVE.rank


@pytest.mark.parametrize(
    ("reverse", "reason"), [((), ""), ((NOTHING,), "there is one")]
)
def test_a_step_has_a_reverse_or_a_reason(
    reverse: tuple[Transaction, ...], reason: str
) -> None:
    """A step with neither, or with both, cannot be written."""
    with pytest.raises(ValueError, match=r"^step 'x' needs a reverse or a reason$"):
        Step(name="x", work=NOTHING, reverse=reverse, no_reverse=reason)


def test_every_phase_reaches_the_next_state() -> None:
    """Phases and states go in step, in running order."""
    assert [phase.reaches for phase in Phase] == list(State)[1:]
    assert [state.rank for state in State] == [0, 1, 2, 3, 4, 5]


def test_locks_are_ordered_by_strength() -> None:
    """The weakest lock comes first."""
    assert Lock.NONE.rank == 0
    assert Lock.ACCESS_SHARE.rank < Lock.SHARE_UPDATE_EXCLUSIVE.rank
    assert max(Lock, key=lambda lock: lock.rank) is Lock.ACCESS_EXCLUSIVE


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_plan_as_json_has_every_phase(pattern: Pattern) -> None:
    """The form of `--json` has a version, and no phase is left out."""
    plan = Plan(
        change="a1",
        title=pattern.title,
        table=USERS,
        rows=7,
        size_bytes=8192,
        admission=pattern.admission,
        notices=pattern.check(FACTS),
        phases={p: pattern.steps(p, FACTS) for p in Phase},
    )
    data = json.loads(plan_to_json(plan))
    assert data["schema"] == 1
    assert data["table"] == {"schema": "public", "name": "users"}
    assert data["new_release_from"] in {"expanded", "verified"}
    assert list(data["phases"]) == ["expand", "backfill", "verify", "retire", "drop"]
    for phase in Phase:
        assert [step_from_dict(s) for s in data["phases"][phase]] == list(
            plan.steps(phase)
        )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a", "b"}, {"b"}, True),
        ({"a"}, {"b"}, False),
        (None, {"b"}, True),
        ({"a"}, None, True),
    ],
)
def test_footprints_overlap_in_a_column(
    one: set[str] | None, other: set[str] | None, *, expected: bool
) -> None:
    """None stands for all columns."""

    def footprint(columns: set[str] | None) -> Footprint:
        kept = None if columns is None else frozenset(columns)
        return Footprint(table=USERS, columns=kept)

    assert footprint(one).overlaps(footprint(other)) is expected


def test_footprints_of_two_tables_do_not_overlap() -> None:
    """The same column of another table is another column."""
    columns = frozenset({"a"})
    other = Footprint(table=TableName("other", "users"), columns=columns)
    assert not Footprint(table=USERS, columns=columns).overlaps(other)
