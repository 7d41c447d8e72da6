"""Types under all their names, and what a change of one makes the server do.

Source: PostgreSQL manual, ALTER TABLE, Notes; `pg_cast` (casts without a function) and
the support functions of varchar, varbit, numeric and the types of time, which tell that
a longer limit changes no value. A test holds each pair against a server.
"""

import re
from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """What a change of type makes of the rows and indexes that are there."""

    #: Nothing: values and their order are the same.
    NONE = "none"
    #: The rows stay, but an index on the column is built anew.
    INDEXES = "indexes"
    #: Each row is written anew, and each index built.
    REWRITE = "rewrite"


@dataclass(frozen=True, slots=True)
class SqlType:
    """
    A type by its shortest name.

    Args:
        name: e.g. "varchar", "timestamptz"; of the user's own, as it is spelt.
        limits: what stands in parentheses, a default written out where it limits.
        array: whether it is an array.
        known: whether the server brings it.
    """

    name: str
    limits: tuple[str, ...] = ()
    array: bool = False
    known: bool = True


_NAMES = {
    "bigint": "bigint",
    "bigserial": "bigint",
    "bit varying": "varbit",
    "bool": "boolean",
    "char": "char",
    "char varying": "varchar",
    "character": "char",
    "character varying": "varchar",
    "dec": "numeric",
    "decimal": "numeric",
    "double precision": "float8",
    "float": "float8",
    "int": "integer",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "real": "float4",
    "serial": "integer",
    "serial2": "smallint",
    "serial4": "integer",
    "serial8": "bigint",
    "smallserial": "smallint",
    "time with time zone": "timetz",
    "time without time zone": "time",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
}
_KNOWN_WORDS = """
    bit boolean box bpchar bytea char cidr circle date daterange datemultirange float4
    float8 inet int4multirange int4range int8multirange int8range integer interval json
    jsonb jsonpath line lseg macaddr macaddr8 money name nummultirange numrange numeric
    oid path pg_lsn point polygon regclass smallint text time timestamp timestamptz
    timetz tsmultirange tsquery tsrange tstzmultirange tstzrange tsvector uuid varbit
    varchar xml
"""
_KNOWN = frozenset(_NAMES.values()) | frozenset(_KNOWN_WORDS.split())

# Serials are integers with a default, NOT NULL and a sequence of their own. Each with
# the word that SQLAlchemy has for it.
_SERIALS = {
    "smallserial": "SMALLSERIAL",
    "serial": "SERIAL",
    "bigserial": "BIGSERIAL",
    "serial2": "SMALLSERIAL",
    "serial4": "SERIAL",
    "serial8": "BIGSERIAL",
}

# Other words that SQLAlchemy has for types; the rest are the same in capitals.
_IN_DIALECT = {
    "float4": "REAL",
    "float8": "DOUBLE PRECISION",
    "time": "TIME WITHOUT TIME ZONE",
    "timestamp": "TIMESTAMP WITHOUT TIME ZONE",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "timetz": "TIME WITH TIME ZONE",
    "varbit": "BIT VARYING",
}
# Types of extensions that it has a word for as well.
_EXTENSIONS = frozenset({"citext", "hstore"})
# What it spells: words, a modifier, a zone, dimensions.
_SPELT = re.compile(
    r"(?:pg_catalog\s*\.\s*)?(?P<words>[a-z][a-z0-9]*(?:\s+(?:varying|precision))?)"
    r"(?:\s*\(\s*(?P<modifier>[0-9]+(?:\s*,\s*-?[0-9]+)?)\s*\))?"
    r"(?:\s+(?P<zone>with|without)\s+time\s+zone)?"
    r"(?P<dimensions>(?:\s*\[\s*[0-9]*\s*\])*|\s+array(?:\s*\[\s*[0-9]+\s*\])?)",
    re.IGNORECASE | re.ASCII,
)

# A collation is the column's, and stands apart.
_COLLATE = re.compile(r"\s+COLLATE\s+\S+\s*$", re.IGNORECASE)
_PARTS = re.compile(
    r"(?P<name>[^(\[]+)(?:\((?P<limits>[^)]*)\)(?P<rest>[^\[]*))?"
    r"(?P<array>(?:\[\s*\d*\s*\]\s*)*)"
)

# The types of time keep six digits of a second where none are given.
_TIMES = ("timestamp", "timestamptz", "time", "timetz", "interval")
_DIGITS = "6"


def parsed(text: str) -> SqlType:
    """Return a type from its SQL."""
    found = _PARTS.fullmatch(uncollated(text))
    if found is None:
        return SqlType(text.strip(), known=False)
    words = f"{found['name']} {found['rest'] or ''}".split()
    array = bool(found["array"])
    if words[-1].upper() == "ARRAY":
        array = bool(words.pop())
    name = " ".join(words)
    if '"' not in name:
        name = name.lower().removeprefix("pg_catalog.")
    limits = tuple(w.strip() for w in (found["limits"] or "").split(",") if w.strip())
    if name.startswith("interval "):
        # Which fields it keeps counts as a limit: INTERVAL DAY, INTERVAL YEAR TO MONTH.
        limits = (name.removeprefix("interval "), *limits)
        name = "interval"
    name = _NAMES.get(name, name)
    if name == "float8" and words[0].lower() == "float" and limits:
        # FLOAT(24) is the largest that real holds.
        name, limits = ("float4" if int(limits[0]) <= 24 else "float8"), ()
    if name in ("char", "bit") and not limits:
        limits = ("1",)
    if name == "bpchar" and limits:
        # Only without one is it another type than char: of any length.
        name = "char"
    if name == "numeric" and len(limits) == 1:
        limits = (*limits, "0")
    if name in _TIMES and not limits:
        limits = (_DIGITS,)
    return SqlType(name, limits, array, name in _KNOWN)


def in_dialect(text: str) -> str:
    """
    Return a type as PostgreSQL's dialect of SQLAlchemy spells it.

    Args:
        text: SQL; what is no type of the server's own comes back as it is.
    """
    found = _SPELT.fullmatch(text)
    if found is None:
        return text
    words = " ".join(found["words"].lower().split())
    modifier = found["modifier"]
    name = "char" if words == "bpchar" and modifier else _NAMES.get(words, words)
    if words == "float" and modifier:
        return text
    if words in _SERIALS:
        known = _SERIALS[words]
    elif name in _KNOWN or name in _EXTENSIONS:
        known = _IN_DIALECT.get(name, name.upper())
    else:
        return text
    shown = f"({', '.join(modifier.replace(',', ' ').split())})" if modifier else ""
    head, _, zone = known.partition(" WITH")
    if zone:
        zone = f" WITH{zone}"
        if found["zone"]:
            zone = f" {found['zone'].upper()} TIME ZONE"
    dimensions = found["dimensions"].strip().upper()
    if dimensions.startswith("ARRAY"):
        dimensions = "[]"
    return f"{head}{shown}{zone}{dimensions.replace(' ', '')}"


def uncollated(text: str) -> str:
    """Return a type without the collation that stands behind it."""
    return _COLLATE.sub("", text.strip())


def is_serial(text: str) -> bool:
    """Tell whether a type stands for an integer with a sequence of its own."""
    return text.strip().lower() in _SERIALS


def plain(text: str) -> str:
    """Return a type without the sequence that a serial brings."""
    return parsed(text).name if is_serial(text) else text


# Pairs for which `pg_cast` needs no function, or whose function changes nothing; and
# whether an index keeps its operator class, so that it stays as well.
_SAME_VALUES = {
    ("varchar", "text"): Effect.NONE,
    ("text", "varchar"): Effect.NONE,
    ("char", "bpchar"): Effect.NONE,
    ("cidr", "inet"): Effect.NONE,
    ("bit", "varbit"): Effect.INDEXES,
    ("text", "bpchar"): Effect.INDEXES,
    ("varchar", "bpchar"): Effect.INDEXES,
    ("integer", "oid"): Effect.INDEXES,
    ("oid", "integer"): Effect.INDEXES,
    ("citext", "text"): Effect.INDEXES,
    ("citext", "varchar"): Effect.INDEXES,
    ("text", "citext"): Effect.INDEXES,
    ("varchar", "citext"): Effect.INDEXES,
}

#: Types to which some cast leaves the rows as they are.
GAINABLE = frozenset(
    {"numeric", "time", "timetz", "timestamp", "timestamptz", "interval"}
    | {new for _, new in _SAME_VALUES}
)


def effect(old: SqlType, new: SqlType, *, utc: bool) -> Effect:
    """
    Return what a cast from one type to another does to rows and indexes.

    Args:
        old: the type before.
        new: the type after.
        utc: whether the session's time zone is UTC.
    """
    if old == new:
        return Effect.NONE
    if old.array or new.array:
        return Effect.REWRITE
    if old.name == new.name:
        return Effect.NONE if _is_wider(old, new) else Effect.REWRITE
    pair = (old.name, new.name)
    if pair in (("timestamp", "timestamptz"), ("timestamptz", "timestamp")):
        wider = int(new.limits[0]) >= int(old.limits[0])
        return Effect.INDEXES if utc and wider else Effect.REWRITE
    # A limit is new: whether a value keeps to it, each row has to tell.
    return Effect.REWRITE if new.limits else _SAME_VALUES.get(pair, Effect.REWRITE)


def _is_wider(old: SqlType, new: SqlType) -> bool:
    """Tell whether a limit of a type holds all that another did, unchanged."""
    match old.name:
        case "varchar" | "varbit":
            if not (old.limits and new.limits):
                return not new.limits
            return int(new.limits[0]) >= int(old.limits[0])
        case "numeric":
            if not (old.limits and new.limits):
                return not new.limits
            return (
                int(new.limits[0]) >= int(old.limits[0])
                and new.limits[1] == old.limits[1]
            )
        case "timestamp" | "timestamptz" | "time" | "timetz":
            return int(new.limits[0]) >= int(old.limits[0])
        case "interval":
            before, after = _finest(old.limits), _finest(new.limits)
            return after[0] <= before[0] and (before[0] > 0 or after[1] >= before[1])
        case _:
            return False


# Fields of an interval, the finest first.
_FIELDS = ("second", "minute", "hour", "day", "month", "year")


def _finest(limits: tuple[str, ...]) -> tuple[int, int]:
    """Return the place of an interval's finest field, and its digits of a second."""
    digits = int(limits[-1]) if limits[-1].isdigit() else int(_DIGITS)
    fields = limits[0].lower().split()
    return (0 if fields[0].isdigit() else _FIELDS.index(fields[-1])), digits


# Each holds all values of those behind it, and gives them back as they were.
_HOLDS = {
    "smallint": frozenset({"integer", "bigint", "numeric", "float4", "float8"}),
    "integer": frozenset({"bigint", "numeric", "float8", "oid"}),
    "bigint": frozenset({"numeric"}),
    "float4": frozenset({"float8"}),
    "date": frozenset({"timestamp"}),
    "json": frozenset({"text"}),
    "cidr": frozenset({"inet"}),
    "bit": frozenset({"varbit"}),
    "char": frozenset({"bpchar", "varchar", "text"}),
    "bpchar": frozenset({"varchar", "text"}),
    "varchar": frozenset({"text"}),
    "text": frozenset({"varchar", "citext"}),
}


def loses(old: SqlType, new: SqlType) -> bool:
    """Tell whether a cast may refuse values, or change what they are."""
    if old == new or (not old.array and not new.array and _widens(old, new)):
        return False
    # Everything has a text; what reads it back is the application's business.
    return old.array != new.array or new.name != "text"


def _widens(old: SqlType, new: SqlType) -> bool:
    if old.name == new.name:
        return _is_wider(old, new)
    if new.name not in _HOLDS.get(old.name, ()):
        return False
    return not new.limits or new.name in ("timestamp", "varbit")
