"""Plans as data: nothing is lost on the way to the ledger and back."""

import json
import re
from dataclasses import replace

import pytest

from migrator.facts import (
    Column,
    Constraint,
    Domain,
    Facts,
    ForeignKey,
    Index,
    IndexColumn,
    Kind,
    Table,
)
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.patterns import (
    CATALOGUE,
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
    Key,
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
    Sql,
    TransformColumn,
)
from migrator.plan import (
    Autocommit,
    ChunkedCheck,
    ChunkedUpdate,
    Footprint,
    Lock,
    Phase,
    Plan,
    State,
    Step,
    TableLock,
    Transaction,
)
from migrator.stored import plan_to_dict, step_from_dict, step_to_dict

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
    made={
        TableName("public", "halves"): Table(
            name=TableName("public", "halves"),
            oid=3,
            columns=(
                Column(name="id", type="bigint", not_null=True),
                Column(name="state", type="text"),
            ),
        )
    },
    domain=Domain(
        type="text",
        default="'x'::text",
        not_null=True,
        checks=(Constraint(name="named", kind="c", definition="(VALUE <> ''::text)"),),
        columns=((TEAMS, "name"),),
    ),
    table=Table(
        name=USERS,
        oid=1,
        columns=(
            Column(name="id", type="bigint", not_null=True),
            Column(name="name", type="text"),
            Column(name="price", type="numeric", image_equal=False),
            Column(name="mood", type="mood", values=("low", "high")),
            Column(name="notes", type="jsonb", image_equal=False),
            Column(name="state", type="text", not_null=True, default="'new'::text"),
            Column(name="code", type="integer", not_null=True, identity=True),
        ),
        indexes=(
            Index(name="by_name", method="btree", keys=(IndexColumn(name="name"),)),
            Index(
                name="by_id",
                method="btree",
                keys=(IndexColumn(name="id"),),
                unique=True,
                columns=("id",),
            ),
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
    AddColumn("users", "nick", "text", computed="upper(name)", not_null=True),
    AddColumn("users", "number", "bigint", identity="always"),
    AddColumn("users", "upper", "text", virtual="upper(name)"),
    SetNotNull("users", "name"),
    SetNotNull("users", "name", fill="''"),
    SplitColumn("users", "name", {"first": ("text", "name")}, "first", type="text"),
    SplitColumn("users", "name", {"first": ("text", "name")}, "first", type="text"),
    RebuildTable("users", alter=["SET (fillfactor = 70)"], assured="tried"),
    PartitionTable(
        "users",
        "HASH",
        ["id"],
        ["users_0", "users_1"],
        key=["id"],
        old_key=["id"],
        assured="tried",
    ),
    SplitTable("users", "halves", ["state"], key=["id"], assured="tried"),
    ExtractTable("users", "halves", ["state"], reference="half", assured="tried"),
    ExtractTable("users", "halves", {"m": "state"}, through="both", assured="tried"),
    MoveColumn("users", "state", to="halves", key={"id": "id"}, assured="tried"),
    MergeTables("halves", "users", ["half"], key={"id": "id"}, assured="tried"),
    MergeTables("halves", "users", {"need": "n"}, key={"id": "id"}, assured="tried"),
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
    ChangeDomain("users", add_check="VALUE <> 'y'", name="not_y"),
    ChangeDomain("users", drop_check="named"),
    ChangeDomain("users", default="'y'"),
    ChangeDomain("users", drop_default=True),
    ChangeDomain("users", drop_not_null=True),
    ChangePrimaryKey("users", "code", old_type="int", assured="tried"),
    TransformColumn("users", "name", "n", "text", "name", "n", old_type="text"),
    EvolveJson("users", "notes", "notes_2", add={"v": "2"}, old_type="jsonb"),
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
    CreateIndex("users", [Key(expression="lower(name)")], "by_name_4"),
    ReplaceIndex("users", "by_name", ["name", "price"]),
    ReplaceIndex("users", "by_name", ["name"], unique=True),
    Reindex("users", "by_name"),
    AddExclusion("users", [("name", "=")], "apart", method="btree", assured="small"),
    AddForeignKey("users", ["name"], "teams", ["name"], "users_team"),
    AddCheck("users", "named", "name <> ''"),
    DropConstraint("users", "priced"),
    DropConstraint("users", "one", assured="unused"),
    DropConstraint("users", "owned"),
    RenameConstraint("users", "priced", "prices"),
    ReplaceForeignKey("users", ["name"], "teams", ["name"], "owned"),
    ReplaceCheck("users", "priced", "price > 0"),
    RenameEnumValue("users", "mood", "low", "sad"),
    RemoveEnumValue("users", "mood", "low", instead="high"),
    AddUnique("users", ["name"], "one_name", nulls_not_distinct=True),
    AddUnique("users", ["price"], "one_price", deferrable="deferred"),
    AddPrimaryKey("users", ["name", "price"], "users_key"),
    AddCheck("users", "named", "name <> ''", enforce_early=True, assured="kept"),
    ReplaceFunction("f(integer)", "CREATE OR REPLACE FUNCTION f(int) …"),
    ReplaceFunction("f(integer)", "CREATE FUNCTION g() …", new_function="g()"),
    ReplaceView("users", "SELECT name FROM people"),
    RefreshMaterializedView("users"),
    SetParameter("work_mem", "64MB", role="reports"),
    SetParameter("work_mem", None, system=True),
    ReplaceView("users", "SELECT 1 AS one", new_name="ones"),
    RenameTable("users", "people"),
    MoveToSchema("users", "crm"),
    CreateTable("audit", "id bigint", grants={"app": ["SELECT"]}),
    CreateTable("own", "id int REFERENCES teams", references=["teams"], assured="ok"),
    AttachPartition("users", "part", "IN ('b')"),
    DetachPartition("users", "own"),
)
PART = Table(
    name=TableName("public", "part"),
    oid=3,
    columns=(),
    constraints=tuple(k for k in FACTS.table.constraints if k.kind == "f"),
)
OWN = replace(
    PART,
    name=TableName("public", "own"),
    parent=USERS,
    bounds="FOR VALUES IN ('a')",
)
PARTED = replace(
    FACTS,
    table=replace(FACTS.table, kind="p", partition_by="LIST (name)", partitions=(OWN,)),
)
NOTHING = Transaction(statements=("SELECT 1",))


HALVES = Table(
    name=TableName("public", "halves"),
    oid=3,
    columns=(Column(name="id", type="bigint", not_null=True),),
    indexes=(
        Index(
            name="halves_pkey",
            method="btree",
            keys=(IndexColumn(name="id"),),
            unique=True,
            columns=("id",),
        ),
    ),
    constraints=(Constraint(name="half", kind="f", columns=("id",)),),
    foreign_keys=(
        ForeignKey(
            name="half",
            table=TableName("public", "halves"),
            columns=("id",),
            to=USERS,
            to_columns=("id",),
        ),
    ),
)


def facts_of(pattern: Pattern, *, dropped: bool = False) -> Facts:
    """Return facts of what the pattern's kind names, before or after its life."""
    if pattern.kind is Kind.VIEW:
        kind = "m" if isinstance(pattern, RefreshMaterializedView) else "v"
        view = Table(name=USERS, oid=1, columns=(), kind=kind, owner="me")
        return replace(FACTS, table=view, definition="SELECT 0 AS name")
    if isinstance(pattern, PartitionTable):
        one = tuple(i for i in FACTS.table.indexes if i.name == "by_id")
        referring = ForeignKey(
            name="likes",
            table=TEAMS,
            columns=("name",),
            to=USERS,
            to_columns=("id",),
            definition="FOREIGN KEY (name) REFERENCES users(id)",
        )
        users = replace(FACTS.table, indexes=one, foreign_keys=(referring,))
        return replace(FACTS, table=users)
    if isinstance(pattern, ExtractTable) and pattern.through:
        many = (Column(name="m", type="text[]", element="text", not_null=True),)
        by_id = tuple(
            replace(i, primary=True) for i in FACTS.table.indexes if i.name == "by_id"
        )
        columns = (*FACTS.table.columns, *(() if dropped else many))
        users = replace(FACTS.table, columns=columns, indexes=by_id)
        return replace(FACTS, table=users)
    if isinstance(pattern, MoveColumn):
        come = (Column(name="state", type="text"),) if dropped else ()
        halves = replace(HALVES, columns=(*HALVES.columns, *come))
        return replace(FACTS, others=(halves,))
    if isinstance(pattern, MergeTables):
        came = [Column(name=c, type="text") for c in ("half", "n")] if dropped else []
        users = replace(FACTS.table, columns=(*FACTS.table.columns, *came))
        goes = [Column(name=c, type="text", not_null=c == "need") for c in pattern.move]
        halves = replace(HALVES, columns=(*HALVES.columns, *goes))
        return replace(FACTS, table=halves, others=(users,))
    if isinstance(pattern, AttachPartition):
        return replace(PARTED, others=(PART,))
    if isinstance(pattern, DetachPartition):
        return replace(PARTED, others=(OWN,))
    if pattern.kind is not Kind.TABLE:
        name, schema = pattern.subject
        bare = Table(name=TableName(schema or "public", name), oid=0, columns=())
        return replace(FACTS, table=bare, definition="old")
    return FACTS


def test_every_pattern_is_tried_here() -> None:
    """A pattern that is added to the catalogue has to be added above."""
    assert {type(p) for p in PATTERNS} == set(CATALOGUE)


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_steps_come_back_as_they_were_stored(pattern: Pattern) -> None:
    """A step read from the ledger is the step that was reviewed."""
    for phase in Phase:
        for step in pattern.steps(phase, facts_of(pattern)):
            stored = json.dumps(step_to_dict(step))
            assert step_from_dict(json.loads(stored)) == step


def test_steps_of_earlier_ledgers_are_read() -> None:
    """They do not tell whose triggers a chunk asks about."""
    pattern = next(p for p in PATTERNS if type(p).__name__ == "MoveColumn")
    (step, *_) = pattern.verify(facts_of(pattern))
    assert isinstance(step.work, ChunkedCheck)
    assert step.work.guard_tables
    stored = step_to_dict(step)
    del stored["work"]["guard_tables"]
    work = replace(step.work, guard_tables=())
    assert step_from_dict(stored) == replace(step, work=work)


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_rebuild_comes_back_as_it_was_stored(pattern: Pattern) -> None:
    """The steps of a rebuild go through the ledger as well."""
    steps = pattern.rebuild(facts_of(pattern, dropped=True))
    # A table that is written anew has the shape that it had.
    same = isinstance(pattern, RebuildTable)
    assert steps or same or not any(s.loses for s in pattern.drop(facts_of(pattern)))
    assert [step_from_dict(step_to_dict(s)) for s in steps] == list(steps)


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_names_of_steps_are_unique_within_a_phase(pattern: Pattern) -> None:
    """A name tells a step within its phase."""
    for phase in Phase:
        found = [s.name for s in pattern.steps(phase, facts_of(pattern))]
        assert len(found) == len(set(found))


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_a_transaction_takes_its_strongest_lock_first(pattern: Pattern) -> None:
    """What it takes before, it takes in the order of those who write both tables."""
    for phase in Phase:
        for step in pattern.steps(phase, facts_of(pattern)):
            for action in (step.work, *step.reverse, step.parked):
                if isinstance(action, Transaction) and action.lock is not Lock.NONE:
                    if pattern.kind is Kind.VIEW:
                        # LOCK TABLE would lock what the view reads.
                        first = f"ALTER VIEW {action.table} OWNER TO"
                        assert action.statements[0].startswith(first)
                        continue
                    ahead = [_weaker(a) for a in action.also if a.first]
                    assert list(action.statements[: len(ahead)]) == ahead
                    first, *others = action.statements[len(ahead) :]
                    if first == f"DROP VIEW IF EXISTS {action.table}":
                        # The view's own lock, not that of its table.
                        continue
                    verb, _, rest = first.partition(" TABLE ")
                    tables, _, mode = rest.partition(" IN ")
                    assert (verb, mode) == ("LOCK", f"{action.lock} MODE")
                    as_strong = [a.table for a in action.also if a.lock is action.lock]
                    # In an order of their own where one is a view of another.
                    wanted = [str(t) for t in (action.table, *as_strong)]
                    assert sorted(tables.split(", ")) == sorted(wanted)
                    weaker = [
                        _weaker(a)
                        for a in action.also
                        if a.lock is not action.lock and not a.first
                    ]
                    assert others[: len(weaker)] == weaker


def _weaker(lock: TableLock) -> str:
    return f"LOCK TABLE ONLY {lock.table} IN {lock.lock} MODE"


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_a_chunk_names_all_tables_whose_triggers_it_asks_about(
    pattern: Pattern,
) -> None:
    """Else the message names one whose trigger is on."""
    for phase in Phase:
        for step in pattern.steps(phase, facts_of(pattern)):
            work = step.work
            if isinstance(work, ChunkedUpdate | ChunkedCheck) and work.guard:
                asked = re.findall(r"'(\S+)'::pg_catalog.regclass", work.guard)
                told = work.guard_tables or (work.root or work.table,)
                assert set(asked) == {str(table) for table in told}


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_a_statement_that_scans_blocks_no_writer(pattern: Pattern) -> None:
    """What reads the whole table holds SHARE UPDATE EXCLUSIVE at most."""
    # Nobody but a refresh writes a materialized view, and readers pass EXCLUSIVE.
    view = isinstance(pattern, RefreshMaterializedView)
    most = Lock.EXCLUSIVE if view else Lock.SHARE_UPDATE_EXCLUSIVE
    for phase in Phase:
        for step in pattern.steps(phase, facts_of(pattern)):
            if isinstance(step.work, Autocommit) and step.work.scans:
                assert step.work.lock.rank <= most.rank


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_a_constraint_is_added_without_a_scan(pattern: Pattern) -> None:
    """It is proved behind, rests on an index, or comes onto a table without rows."""
    added = [
        text
        for phase in Phase
        for step in pattern.steps(phase, facts_of(pattern))
        for action in (step.work, *step.reverse)
        if isinstance(action, Transaction | Autocommit)
        for text in getattr(action, "statements", (getattr(action, "statement", ""),))
        if " ADD CONSTRAINT " in text and step.name != "create_shadow"
    ]
    for text in added:
        # One that may have gone since is made again by a block.
        later = re.search(r" NOT VALID(''.*|; COMMENT .*)?$", text)
        proved = later or " USING INDEX " in text
        # A small table alone, since nothing else is known to the server.
        assert proved or isinstance(pattern, AddExclusion), text


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
        notices=pattern.check(facts_of(pattern)),
        phases={p: pattern.steps(p, facts_of(pattern)) for p in Phase},
    )
    data = json.loads(json.dumps(plan_to_dict(plan)))
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
