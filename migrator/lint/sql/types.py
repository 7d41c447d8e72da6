"""Types as SQLAlchemy spells them, so that rules meet one word for each."""

import re

_WORDS = {
    "int": "INTEGER",
    "int4": "INTEGER",
    "integer": "INTEGER",
    "int8": "BIGINT",
    "bigint": "BIGINT",
    "int2": "SMALLINT",
    "smallint": "SMALLINT",
    "serial": "SERIAL",
    "serial4": "SERIAL",
    "bigserial": "BIGSERIAL",
    "serial8": "BIGSERIAL",
    "smallserial": "SMALLSERIAL",
    "serial2": "SMALLSERIAL",
    "bool": "BOOLEAN",
    "boolean": "BOOLEAN",
    "float4": "REAL",
    "real": "REAL",
    "float8": "DOUBLE PRECISION",
    "float": "DOUBLE PRECISION",
    "double precision": "DOUBLE PRECISION",
    "decimal": "NUMERIC",
    "dec": "NUMERIC",
    "numeric": "NUMERIC",
    "character varying": "VARCHAR",
    "char varying": "VARCHAR",
    "varchar": "VARCHAR",
    "character": "CHAR",
    "char": "CHAR",
    "bpchar": "CHAR",
    "text": "TEXT",
    "date": "DATE",
    "time": "TIME WITHOUT TIME ZONE",
    "timetz": "TIME WITH TIME ZONE",
    "timestamp": "TIMESTAMP WITHOUT TIME ZONE",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "interval": "INTERVAL",
    "uuid": "UUID",
    "json": "JSON",
    "jsonb": "JSONB",
    "bytea": "BYTEA",
    "inet": "INET",
    "cidr": "CIDR",
    "money": "MONEY",
    "xml": "XML",
    "bit": "BIT",
    "bit varying": "BIT VARYING",
    "varbit": "BIT VARYING",
    "tsvector": "TSVECTOR",
    "tsquery": "TSQUERY",
    "citext": "CITEXT",
    "hstore": "HSTORE",
}
# A type of the server's own: its words, its modifier, its zone, its dimensions.
_TYPE = re.compile(
    r"(?:pg_catalog\s*\.\s*)?(?P<words>[a-z][a-z0-9]*(?:\s+(?:varying|precision))?)"
    r"(?:\s*\(\s*(?P<modifier>[0-9]+(?:\s*,\s*-?[0-9]+)?)\s*\))?"
    r"(?:\s+(?P<zone>with|without)\s+time\s+zone)?"
    r"(?P<dimensions>(?:\s*\[\s*[0-9]*\s*\])*|\s+array(?:\s*\[\s*[0-9]+\s*\])?)",
    re.IGNORECASE | re.ASCII,
)


def spelt(text: str) -> str:
    """
    Return a type as PostgreSQL's dialect of SQLAlchemy spells it.

    Args:
        text: SQL; what is no type of the server's own comes back as it is.
    """
    found = _TYPE.fullmatch(text)
    if found is None:
        return text
    words = " ".join(found["words"].lower().split())
    known = _WORDS.get(words)
    if known is None or (words == "float" and found["modifier"]):
        return text
    modifier = found["modifier"]
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
