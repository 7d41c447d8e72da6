"""Names: checked where given, stable and fitting where generated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrator import names
from migrator.errors import Refused
from migrator.names import MAX_NAME_BYTES, TableName

# A server stores neither NUL nor lone surrogates.
TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))


def test_tag_is_the_same_on_every_machine() -> None:
    """A tag is in the names of objects, so that it may never come out different."""
    assert names.tag("a1b2", "public", "users") == "3f10a365f0"


def test_tag_tells_where_a_part_ends() -> None:
    """The same letters in other parts give another tag."""
    assert names.tag("ab", "c") != names.tag("a", "bc")


@given(TEXT, TEXT.map(lambda t: t.encode()[:40].decode(errors="ignore")))
def test_fitted_keeps_the_suffix_and_whole_characters(stem: str, suffix: str) -> None:
    """A fitted name has at most 63 bytes, and is cut between characters."""
    name = names.fitted(stem, suffix)
    assert name.endswith(suffix)
    kept = name.removesuffix(suffix) if suffix else name
    assert stem.startswith(kept)
    assert len(name.encode()) <= MAX_NAME_BYTES
    if kept != stem:
        following = stem[len(kept)]
        assert len((kept + following + suffix).encode()) > MAX_NAME_BYTES


@given(TEXT)
def test_owned_keeps_the_tag(stem: str) -> None:
    """Two changes never share a generated name, however long the column's is."""
    one = names.owned("retired", stem, "0123456789")
    two = names.owned("retired", stem, "9876543210")
    assert one != two
    assert one.endswith("_0123456789")
    assert names.checked(one, "column") == one


def test_owned_tells_long_names_apart() -> None:
    """Names that differ behind the cut, as of two indexes, stay two names."""
    one, two = (names.owned("index", "i" * 60 + end, "0123456789") for end in "ab")
    assert one != two
    assert max(len(one), len(two)) <= MAX_NAME_BYTES


def test_fitted_cuts_between_characters() -> None:
    """A character of two bytes that would not fit whole is left out."""
    assert names.fitted("é" * 40, "_x") == "é" * 30 + "_x"


@given(TEXT.filter(bool))
def test_checked_returns_the_name_or_refuses_it(name: str) -> None:
    """Bytes are counted, not characters."""
    if len(name.encode()) <= MAX_NAME_BYTES:
        assert names.checked(name, "column") == name
    else:
        with pytest.raises(Refused, match="63 without an error"):
            names.checked(name, "column")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "",
            "A column name is empty.\nNothing was changed.\n"
            "Next: give the column a name.",
        ),
        (
            "a\0b",
            "The column name 'a\\x00b' holds a NUL character, which PostgreSQL does"
            " not store.\nNothing was changed.\nNext: choose another name.",
        ),
        (
            "é" * 32,
            f'The column name "{"é" * 32}" has 64 bytes; PostgreSQL would cut it at'
            " 63 without an error.\nNothing was changed.\n"
            "Next: choose a shorter name.",
        ),
    ],
)
def test_checked_says_what_is_wrong(name: str, message: str) -> None:
    """A refused name comes with the reason and what to do."""
    with pytest.raises(Refused) as caught:
        names.checked(name, "column")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (TableName("public", "users"), '"public"."users"'),
        (TableName('a"b', "c.d"), '"a""b"."c.d"'),
        (TableName("50%", ":x"), '"50%".":x"'),
    ],
)
def test_table_name_is_quoted(table: TableName, text: str) -> None:
    """A dot or a quote within a name does not end it."""
    assert str(table) == text


def test_trigger_sorts_behind_an_applications_own() -> None:
    """The server fires triggers in order of their names."""
    assert names.trigger("0123456789") == "zzz_migrator_0123456789"
    # The server's own come first, then a mirror's AFTER triggers.
    order = ["RI_ConstraintTrigger_c_99", names.after_trigger("0"), "_audit", "audit"]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("word", "means"),
    [
        ("ab", ["ab"]),
        ("x/ab", ["x/ab"]),
        ("cd", ["x/cd"]),
        ("abc", ["x/abc1", "y/abc2"]),
        ("y", ["y/abc2"]),
        ("cd:2", ["x/cd:2"]),
        ("cd:1", ["x/cd"]),
        ("ab:1", ["ab"]),
        ("c:1", []),
        ("", []),
        ("nope", []),
    ],
)
def test_a_word_means_changes(word: str, means: list[str]) -> None:
    """An id, a revision, or the beginning of either, whatever its version table."""
    ids = ["ab", "x/ab", "x/cd", "x/cd:2", "x/abc1", "y/abc2"]
    assert names.meant(word, ids) == means


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("lower(\"Mail\") <> 'size' AND age > 1", {"Mail", "and", "age"}),
        ("(users).age > 1", None),
        ("users IS NOT NULL", None),
        ("first_name(users) = 'a'", None),
        ("mail = E'it\\'s' AND age > 1", None),
    ],
)
def test_what_an_expression_reads(expression: str, expected: set[str] | None) -> None:
    """Each word may be a column; the table's own is the whole row."""
    assert names.read_by("users", expression) == expected
