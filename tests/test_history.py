"""Which changes of a history wait for which, without a database."""

import pytest
from test_plan import PATTERNS, facts_of

from migrator.change import Change
from migrator.errors import UsageError
from migrator.history import History, Node, required
from migrator.names import TableName
from migrator.pattern import Pattern, Undecided
from migrator.patterns import (
    AddCheck,
    AddColumn,
    AddForeignKey,
    CreateIndex,
    MoveColumn,
    RenameColumn,
    RenameTable,
    SetNotNull,
)
from migrator.plan import Footprint, Phase

NAME = RenameColumn("users", "name", "full_name")
MAIL = RenameColumn("users", "mail", "address")
FILLED = SetNotNull("users", "full_name", fill="''")


def node(
    revision: str, after: str, *patterns: Pattern, requires: tuple[str, ...] = ()
) -> Node:
    """Return a revision with changes."""
    changes = tuple(
        Change(revision=revision, pattern=p, ordinal=n)
        for n, p in enumerate(patterns, 1)
    )
    return Node(
        revision=revision,
        after=tuple(after.split()),
        changes=changes,
        requires=requires,
    )


def found(history: History, revision: str) -> list[tuple[str, str, str, bool]]:
    """Return what a revision does not declare."""
    return [
        (o.earlier.name, o.later.name, o.what, o.ordered)
        for o in history.undeclared(revision)
    ]


def test_a_change_says_what_it_waits_for() -> None:
    """What touches the same column has to be required, and nothing else."""
    nodes = [node("r1", ""), node("r2", "r1", NAME), node("r3", "r2", MAIL)]
    open_ = History([*nodes, node("r4", "r3", FILLED)])
    assert found(open_, "r3") == []
    assert found(open_, "r4") == [("r2", "r4", '"full_name" of "users"', True)]
    said = History([*nodes, node("r4", "r3", FILLED, requires=("r2",))])
    assert found(said, "r4") == []


def test_a_database_has_less_in_flight() -> None:
    """What is finished in it, or was stamped, is waited for by nobody."""
    history = History([node("r2", "", NAME), node("r3", "r2", FILLED)])
    late = [("r2", "r3", '"full_name" of "users"', True)]
    assert found(history.beside((), (), ("r2", "r3")), "r3") == late
    assert found(history.beside(("r2",), (), ("r3",)), "r3") == late
    assert found(history.beside((), ("r2",), ("r3",)), "r3") == []
    assert found(history.beside((), ("r2",), ("r2", "r3")), "r3") == []
    stamped = history.beside((), (), ("r3",))
    assert found(stamped, "r3") == []
    assert found(stamped.requiring("r3", ("nope",)), "r3") == []


def test_what_is_required_before_needs_not_be_said_again() -> None:
    """A change is finished for all that come behind one which waited for it."""
    nodes = [
        node("r2", "", NAME),
        # One without a change may wait as well.
        node("r3", "r2", requires=("r2",)),
        node("r4", "r3", FILLED),
        node("r5", "r4", SetNotNull("users", "full_name"), requires=("r4",)),
    ]
    history = History(nodes)
    assert [found(history, n.revision) for n in nodes] == [[], [], [], []]
    # The last one that touches the same is enough.
    again = SetNotNull("users", "full_name")
    assert history.for_new(["r5"], [again]) == ["r5"]
    assert history.for_new(["r2"], [again]) == ["r2"]
    assert history.for_new(["r3"], [again]) == []
    assert history.for_new(["r5"], [MAIL]) == []
    everything = AddCheck("users", "c", "id > 0")
    assert history.for_new(["r5"], [MAIL, everything, again]) == ["r5"]


def test_what_ends_at_expand_is_waited_for_by_nobody() -> None:
    """It is finished before the next revision begins."""
    history = History(
        [
            node("r2", "", AddColumn("users", "age", "int")),
            node("r3", "r2", CreateIndex("users", ["age"], "by_age")),
            node("r4", "r3", SetNotNull("users", "age", fill="0")),
            node("r5", "r4", CreateIndex("users", ["age"], "by_age_2")),
        ]
    )
    assert found(history, "r4") == []
    # That it ends there itself does not help.
    assert found(history, "r5") == [("r4", "r5", '"age" of "users"', True)]


def test_changes_of_one_revision() -> None:
    """The second one cannot wait: nothing runs between them."""
    history = History([node("r2", "", NAME, MAIL, FILLED)])
    assert found(history, "r2") == [("r2", "r2:3", '"full_name" of "users"', True)]
    # Behind it, the revision's name means all of them, and one its own.
    assert history.for_new(["r2"], [MAIL]) == ["r2:2"]
    behind = History([*history.nodes, node("r3", "r2", MAIL, requires=("r2",))])
    assert found(behind, "r3") == []


def test_tables_and_schemas() -> None:
    """Names without a schema are those of public; a table has two names for a while."""
    history = History(
        [
            node("r2", "", RenameTable("users", "accounts")),
            node("r3", "r2", RenameColumn("orders", "a", "b", schema="app")),
        ]
    )

    def missing(pattern: Pattern) -> list[str]:
        return history.for_new(["r3"], [pattern])

    assert missing(AddColumn("accounts", "x", "int", schema="public")) == ["r2"]
    assert missing(AddColumn("users", "x", "int")) == ["r2"]
    assert missing(AddColumn("users", "x", "int", schema="app")) == []
    assert missing(RenameColumn("orders", "a", "c")) == []
    assert missing(RenameColumn("orders", "a", "c", schema="app")) == ["r3"]
    moved = MoveColumn("bills", "a", to="orders", key={"id": "b"}, schema="app")
    assert missing(moved) == ["r3"]


def test_keys_that_refer_to_the_same_column_do_not_wait() -> None:
    """Both only need that it stays; what changes it waits for them."""

    def key(table: str) -> AddForeignKey:
        return AddForeignKey(table, ["user_id"], "users", ["id"], f"{table}_user")

    history = History([node("r2", "", key("orders"))])
    assert history.for_new(["r2"], [key("carts")]) == []
    assert history.for_new(["r2"], [RenameColumn("users", "id", "key")]) == ["r2"]
    footprints = [
        Footprint(
            table=TableName("public", "users"),
            columns=frozenset({"id"}),
            needed=needed,
        )
        for needed in (True, False)
    ]
    assert [f.overlaps(footprints[0]) for f in footprints] == [False, True]


def test_what_an_expression_reads_has_to_stay() -> None:
    """As far as its words tell; functions, types and strings are no columns."""
    computed = "lower(\"A b\") || CASE kind WHEN 'size' THEN x::text END"
    history = History([node("r2", "", AddColumn("t", "up", "text", computed=computed))])
    for column, waits in {
        "A b": True,
        "kind": True,
        "x": True,
        "size": False,
        "lower": False,
        "text": False,
    }.items():
        found = history.for_new(["r2"], [RenameColumn("t", column, "y")])
        assert found == (["r2"] if waits else [])
    other = AddColumn("t", "low", "text", computed="kind")
    assert history.for_new(["r2"], [other]) == []


def test_branches() -> None:
    """Where neither comes first it is told; by the merge, once there is one."""
    nodes = [node("r1", ""), node("r2", "r1", NAME), node("s2", "r1", FILLED)]
    overlap = ("r2", "s2", '"full_name" of "users"', False)
    heads = History(nodes)
    assert (found(heads, "r2"), found(heads, "s2")) == ([], [overlap])
    merge = node("m3", "r2 s2")
    later = node("r4", "m3", SetNotNull("users", "full_name"))
    merged = History([*nodes, merge, later])
    assert (found(merged, "s2"), found(merged, "m3")) == ([], [overlap])
    assert {f[0] for f in found(merged, "r4")} == {"r2", "s2"}
    said = History([*nodes, node("m3", "r2 s2", requires=("r2", "s2")), later])
    assert [found(said, r) for r in ("r2", "s2", "m3", "r4")] == [[], [], [], []]
    # In an order, the merge does not have to wait.
    ordered = node("s2", "r1 r2", FILLED, requires=("r2",))
    inline = History([*nodes[:2], ordered, merge])
    assert [found(inline, r) for r in ("s2", "m3")] == [[], []]


def test_what_cannot_be_required() -> None:
    """Only changes of revisions that come before."""
    history = History(
        [
            node("r1", ""),
            node("r2", "r1", NAME),
            node("s2", "r1", MAIL, requires=("r2",)),
            node("r3", "r2", FILLED, requires=("r2", "r1", "r3", "nope", "r2:2")),
        ]
    )
    assert history.wrong("s2") == ["r2"]
    assert history.wrong("r3") == ["r1", "r3", "nope", "r2:2"]


@pytest.mark.parametrize("given", [3, "", ["r2", 3], [""], {"s2": "r2"}])
def test_what_is_no_name(given: object) -> None:
    """A text, or a list of texts; anything else is refused with an example."""
    with pytest.raises(UsageError, match=r'write requires = "3f2a1b"') as caught:
        required(given, "r3")
    assert f"Revision r3 has requires = {given!r}" in str(caught.value)


def test_names_as_they_are_written() -> None:
    """One, several, or none."""
    assert required(None, "r3") == ()
    assert required("r2", "r3") == ("r2",)
    assert required(["r2", "r4:2"], "r3") == ("r2", "r4:2")


def test_what_makes_no_sense_is_left_to_who_checks_it() -> None:
    """A choice that is open, and a wrong declaration, do not stop the others."""
    history = History(
        [
            node("r2", "", Undecided("whether", "r2.py", 1)),
            node("r3", "r2", MoveColumn("users", "a", to="b", key=3)),  # type: ignore[arg-type]
            node("r4", "r3", MAIL),
        ]
    )
    assert [found(history, r) for r in ("r2", "r3", "r4")] == [[], [], []]
    assert history.for_new(["r4"], [Undecided("whether", "r5.py", 1)]) == []


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_what_a_declaration_names_is_part_of_its_footprint(pattern: Pattern) -> None:
    """What is told without a database is never more than the ledger's own."""
    facts = facts_of(pattern)
    schema = facts.table.name.schema
    for reach in pattern.reaches():
        known = [
            f.columns
            for f in pattern.footprints(facts)
            if (f.table.name, f.table.schema) == (reach.table, reach.schema or schema)
        ]
        # A key that a declaration does not name may be there besides.
        assert any(
            columns == reach.columns or (columns and (reach.columns or {0}) <= columns)
            for columns in known
        )


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_what_ends_at_expand_has_nothing_to_do_later(pattern: Pattern) -> None:
    """By its own word there is no step after expand."""
    later = [s for p in list(Phase)[1:] for s in pattern.steps(p, facts_of(pattern))]
    assert not (pattern.ends_at_expand and later)
