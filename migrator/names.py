"""Names of database objects: given ones checked, generated ones made to fit."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from migrator.errors import Refused

# PostgreSQL cuts identifiers at NAMEDATALEN - 1 bytes (manual, section 4.1.1).
MAX_NAME_BYTES = 63

# Hexadecimal digits of a tag. 40 bits: two changes of one database meet with a
# probability of about 1e-6 at a thousand changes, and the ledger would refuse.
TAG_DIGITS = 10


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """A table with its schema, never a dotted string."""

    schema: str
    name: str

    def __str__(self) -> str:
        """Return the quoted form, as in messages."""
        return self.identifier.as_string(None)

    @property
    def identifier(self) -> sql.Identifier:
        """The name as SQL."""
        return sql.Identifier(self.schema, self.name)


def checked(name: str, kind: str) -> str:
    """
    Return a user-given name, or refuse one that PostgreSQL would change.

    Args:
        name: the name, unquoted.
        kind: what it names, for the message ("column", "index" …).

    Raises:
        Refused: empty, holds a NUL, or is longer than 63 bytes.
    """
    if not name:
        raise Refused(f"A {kind} name is empty.", next=f"give the {kind} a name.")
    if "\0" in name:
        raise Refused(
            f"The {kind} name {name!r} holds a NUL character, which PostgreSQL"
            " does not store.",
            next="choose another name.",
        )
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        raise Refused(
            f'The {kind} name "{name}" has {size} bytes; PostgreSQL would cut it'
            f" at {MAX_NAME_BYTES} without an error.",
            next="choose a shorter name.",
        )
    return name


#: Behind a revision, what may name its first change, whose id has no number.
FIRST = ":1"


def meant(word: str, ids: Iterable[str]) -> list[str]:
    """
    Return the changes that a person's word means.

    Args:
        word: an id, or its revision, or the beginning of either; the first change of a
            revision is also its `:1`.
        ids: of changes; one of another version table than Alembic's own has its
            name and a slash in front of the revision.
    """
    revisions = {known: known.rpartition("/")[2] for known in ids}
    whole = word.removesuffix(FIRST)
    if whole in revisions:
        return [whole]
    exact = [known for known, revision in revisions.items() if revision == whole]
    return exact or [
        known
        for known, revision in revisions.items()
        if word and (known.startswith(word) or revision.startswith(word))
    ]


def tag(*parts: str) -> str:
    """Return a short tag that is the same for the same parts on every machine."""
    text = "\0".join(parts).encode()
    return hashlib.sha256(text).hexdigest()[:TAG_DIGITS]


def fitted(stem: str, suffix: str) -> str:
    """
    Return ``stem + suffix``, the stem cut so that the whole fits in 63 bytes.

    Args:
        stem: cut at a character's boundary where needed.
        suffix: kept whole, at most 63 bytes.
    """
    room = MAX_NAME_BYTES - len(suffix.encode())
    return stem.encode()[:room].decode(errors="ignore") + suffix


# Sorts behind the names of an application's triggers, so that its own BEFORE
# triggers run first (PostgreSQL fires triggers in order of their names).
TRIGGER_PREFIX = "zzz_migrator_"

# Sorts behind the server's own triggers, whose messages name the table, and before
# an application's AFTER triggers: one that writes the table again, such as a row's next
# version, finds the other table where it would find this one.
AFTER_TRIGGER_PREFIX = "RI_migrator_"

#: What the names of all triggers begin with that are a change's.
TRIGGER_PREFIXES = (TRIGGER_PREFIX, AFTER_TRIGGER_PREFIX)


#: What the names of all objects that a change owns for a while begin with.
OWNED = "_migrator_"


def trigger(change_tag: str) -> str:
    """Return the name of a change's dual-write trigger."""
    return TRIGGER_PREFIX + change_tag


def after_trigger(change_tag: str) -> str:
    """Return the name of a dual-write trigger that fires before an application's."""
    return AFTER_TRIGGER_PREFIX + change_tag


def function(change_tag: str) -> sql.Identifier:
    """Return the name of a change's trigger function, in the ledger's schema."""
    return sql.Identifier(LEDGER_SCHEMA, f"mirror_{change_tag}")


def owned(kind: str, stem: str, change_tag: str) -> str:
    """
    Return the name of an object that a change owns for a while.

    Args:
        kind: one word on its purpose ("retired", "parked", "check" …).
        stem: what it stands for, to be recognised by a reader.
        change_tag: the change's tag.
    """
    name = f"{OWNED}{kind}_{stem}_{change_tag}"
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    # Long names may differ in what is cut away only.
    return fitted(f"{OWNED}{kind}_{stem}", f"_{tag(stem)}_{change_tag}")


def retired(table: TableName, change_tag: str) -> TableName:
    """Return the name under which a change keeps a table that it retires."""
    return TableName(table.schema, owned("retired", table.name, change_tag))


LEDGER_SCHEMA = "migrator"


# A string, which names nothing; a name, quoted or not, with what tells that it is a
# type's or a function's.
_WORDS = re.compile(
    r"""'(?:[^']|'')*'|(?P<cast>::\s*)?(?P<name>"(?:[^"]|"")+"|[^\W\d][\w$]*)(?P<call>\s*\()?"""
)


def read_by(table: str, *expressions: str) -> frozenset[str] | None:
    """
    Return the words of expressions over a row, among which are all columns it reads.

    Args:
        table: whose row it is.
        expressions: in SQL.

    Returns:
        None where they may read the whole row, or are quoted in a way that hides words.
    """
    text = " ".join(expressions)
    found = mentioned(text)
    every = frozenset(re.findall(r"[^\W\d][\w$]*", text))
    hides = "\\" in text or "$$" in text or "*" in text or "--" in text or "/*" in text
    if table in found or table in every or hides or re.search(r"(?i)U&", text):
        return None
    return found


def mentioned(expression: str) -> frozenset[str]:
    """Return the names in an SQL expression that may be columns, and more."""
    found = (m for m in _WORDS.finditer(expression) if m["name"])
    return frozenset(
        m["name"][1:-1].replace('""', '"') if m["name"][0] == '"' else m["name"].lower()
        for m in found
        if not (m["cast"] or m["call"])
    )
