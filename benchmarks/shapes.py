"""Tables that backfills are measured on."""

from dataclasses import dataclass

#: About 200 bytes a row, as PostgreSQL stores it.
_COLUMNS = "name text, email text, n bigint, at timestamptz, pad text"
_VALUES = (
    "'name ' || g, 'user' || g || '@example.org', g % 1000,"
    " now() - g * interval '1 s', repeat('x', 90)"
)


@dataclass(frozen=True)
class Shape:
    """One table: how it is made, and how many rows for one of the narrow kind."""

    name: str
    key: str = "id bigint PRIMARY KEY"
    make_key: str = "g"
    #: Statements after the load.
    indexes: tuple[str, ...] = ("CREATE INDEX ON base (email)",)
    #: Statements once the column is there.
    later: tuple[str, ...] = ()
    #: Whether another session holds a snapshot all the while.
    held: bool = False
    options: str = ""
    values: str = _VALUES
    share: float = 1.0

    def sql(self, rows: int) -> str:
        """Return the statements that make the table `base`."""
        return (
            f"CREATE TABLE base ({self.key}, {_COLUMNS}) {self.options};"
            f" INSERT INTO base SELECT {self.make_key}, {self.values}"
            f" FROM generate_series(1, {int(rows * self.share)}) g"
        )


NARROW = Shape("narrow")
SIX_INDEXES = Shape(
    "six indexes",
    indexes=tuple(
        f"CREATE INDEX ON base ({c})" for c in ("email", "n", "at", "n, at", "email, n")
    ),
)
SHAPES = (
    Shape("uuid key", "id uuid PRIMARY KEY", "gen_random_uuid()"),
    Shape(
        "wide, TOASTed",
        values="'name ' || g, 'user' || g || '@example.org', g % 1000, now(),"
        " (SELECT string_agg(md5((g * 200 + i)::text), '')"
        " FROM generate_series(1, 120) i)",
        share=0.05,
    ),
    Shape("fillfactor 50", options="WITH (fillfactor = 50)"),
    Shape("fillfactor 90", options="WITH (fillfactor = 90)"),
    Shape("no other index", indexes=()),
    Shape("index on the column", later=("CREATE INDEX ON t (full_name)",)),
    Shape("snapshot held", held=True),
    Shape("four rows a page", values=_VALUES.replace("90", "1800"), share=0.12),
)
