"""Defaults of new columns: whether rows that are there need a value each."""

import re
from enum import StrEnum


class Kind(StrEnum):
    """How a default is worked out."""

    #: Once, and kept in the catalogue for all rows that are there.
    ONCE = "once"
    #: For each row.
    EACH = "each"
    #: By a function that is not known here: for each row, unless it is declared
    #: STABLE or IMMUTABLE.
    UNKNOWN = "unknown"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Words that stand before a parenthesis and are no volatile function: stable and
# immutable ones that defaults are made of, types with a limit, and syntax.
STEADY = _words(
    """
    abs age any array array_fill array_length bit bit_length bool bpchar btrim
    cardinality cast ceil ceiling char char_length character character_length
    coalesce concat concat_ws convert_from convert_to current_setting current_time
    current_timestamp date date_bin date_part date_trunc daterange dec decimal
    decode encode exists extract float floor format greatest host in
    int4multirange int4range int8multirange int8range interval json_array
    json_build_array json_build_object json_object jsonb_array jsonb_build_array
    jsonb_build_object jsonb_object jsonb_set least left length localtime
    localtimestamp lower lpad ltrim make_date make_interval make_time
    make_timestamp make_timestamptz md5 method mod now nullif numeric numrange
    octet_length overlay pg_backend_pid point position power quote_ident
    quote_literal regexp_replace repeat replace reverse right round row rpad rtrim
    sha256 sign some sqrt statement_timestamp strpos substr substring text time
    timestamp timestamptz timetz timezone to_char to_date to_json to_jsonb
    to_number to_timestamp to_tsquery to_tsvector transaction_timestamp trim trunc
    tsrange tstzrange upper values varbit varchar varying xmlelement zone
    """
)
#: Functions that give another value at each call.
VOLATILE = _words(
    """
    clock_timestamp currval gen_random_bytes gen_random_uuid lastval nextval
    random random_normal setval timeofday uuid_generate_v1 uuid_generate_v1mc
    uuid_generate_v4 uuid_generate_v7 uuidv4 uuidv7
    """
)

# Text in quotes, and in dollars, calls nothing.
_TEXT = re.compile(r"'(?:[^']|'')*'|(\$\w*\$).*?\1", re.DOTALL)
_CALL = re.compile(r'(?:(\w+|"[^"]+")\s*\.\s*)?(\w+|"[^"]+")\s*\(')


def kind(default: str) -> Kind:
    """
    Return how a default is worked out for rows that are there.

    Source: PostgreSQL manual, ALTER TABLE, Notes (11+).

    Args:
        default: SQL expression.
    """
    found = Kind.ONCE
    for schema, name in _CALL.findall(_TEXT.sub("''", default)):
        word = name.strip('"').lower()
        if word in VOLATILE:
            return Kind.EACH
        if schema not in ("", "pg_catalog") or word not in STEADY:
            found = Kind.UNKNOWN
    return found
