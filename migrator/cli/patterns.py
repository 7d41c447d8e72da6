"""What patterns there are, told from their classes, docstrings and pages."""

import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, asdict, dataclass, fields
from importlib.resources import files
from typing import Any

import click

from migrator.cli import output
from migrator.cli.app import example, json_option
from migrator.cli.report import JSON_SCHEMA
from migrator.errors import UsageError
from migrator.pattern import Pattern
from migrator.patterns import CATALOGUE, __all__
from migrator.plan import Lock, Phase

#: Its command stands beside those of `migrator.cli.main`.
group = click.Group()

#: What a docstring's table says of a lock that is held for milliseconds.
BRIEF = ("no scan", "per chunk")
#: How it begins of a statement that only a partitioned table takes.
PARTITIONED = "partitioned: "

INDENT = "  "


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table on top of a pattern's file."""

    phase: Phase
    statement: str
    lock: str

    @property
    def strength(self) -> Lock:
        """The strongest lock that the line names."""
        # The longest first: one mode's name may end as another one's does.
        modes = sorted((lock.value for lock in Lock), key=len, reverse=True)
        found = (Lock(mode) for mode in re.findall("|".join(modes), self.lock))
        return max(found, key=lambda lock: lock.rank, default=Lock.NONE)

    @property
    def brief(self) -> bool:
        """Whether the lock is held for milliseconds, whatever the table's size."""
        return any(word in self.lock for word in BRIEF)

    @property
    def partitioned(self) -> bool:
        """Whether only a partitioned table takes it."""
        return self.statement.startswith(PARTITIONED)

    def __str__(self) -> str:
        return f"{self.strength}, {'briefly' if self.brief else 'as long as it takes'}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; `default` is Python text, None where it has to be given."""

    name: str
    type: str
    default: str | None
    about: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A pattern, as the catalogue tells it."""

    name: str
    about: str
    lines: tuple[Line, ...]
    parameters: tuple[Parameter, ...]
    example: str
    bad: str
    good: str
    reversible: str

    @classmethod
    def of(cls, pattern: type[Pattern]) -> "Entry":
        """Read the docstrings of a pattern's file and class, and its page."""
        module = sys.modules[pattern.__module__].__doc__ or ""
        own = inspect.getdoc(pattern) or ""
        lines = tuple(_table(module))
        said = dict(_arguments(_section(own, "Args:")))
        page = _page(pattern)
        lasting = all(line.phase is not Phase.DROP for line in lines)
        return cls(
            name=pattern.__name__,
            about=module.split("\n")[0],
            lines=lines,
            parameters=tuple(
                Parameter(f.name, _type(f.type), _default(f), said.get(f.name, ""))
                # A frozen dataclass in every subclass, which an ABC cannot state.
                for f in fields(pattern)  # type: ignore[arg-type]
            ),
            example=_section(own, "Example:"),
            bad=_part(page, "Bad"),
            good=_part(page, "Good"),
            reversible=pattern.reversible or ("always" if lasting else "until drop"),
        )

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases in which it has steps, in running order."""
        return tuple(p for p in Phase if any(p is line.phase for line in self.lines))

    @property
    def strongest(self) -> Line:
        """The line with the strongest lock on a plain table; of several the longest."""
        return _strongest(line for line in self.lines if not line.partitioned)

    @property
    def partitioned(self) -> Line | None:
        """The same of a partitioned one, where that is another lock."""
        line = _strongest(self.lines)
        return line if line.partitioned else None

    def as_data(self) -> dict[str, Any]:
        """Return the row of the list as plain data."""
        return {
            "name": self.name,
            "about": self.about,
            "phases": list(self.phases),
            "strongest_lock": self.strongest.strength,
            "brief": self.strongest.brief,
            "partitioned": None
            if self.partitioned is None
            else {
                "strongest_lock": self.partitioned.strength,
                "brief": self.partitioned.brief,
            },
            "reversible": self.reversible,
        }


def _strongest(lines: Iterable[Line]) -> Line:
    return max(lines, key=lambda line: (line.strength.rank, not line.brief))


def _table(text: str) -> Iterator[Line]:
    """
    Yield the lines below `phase  statement  lock`, up to an empty one.

    A line whose statement is indented, or left out, belongs to the one above it.
    """
    rows = iter(text.split("\n"))
    head = next((row for row in rows if row.startswith("phase ")), None)
    if head is None:
        return
    second, third = head.index("statement"), head.index("lock")
    # Where another table is locked as well, that has a column of its own.
    beyond = re.search(r"  (on [^ ].*)$", head[third:])
    fourth = None if beyond is None else third + beyond.start(1)
    other = beyond[1] if beyond else ""
    lines: list[list[str]] = []
    for row in rows:
        if not row:
            break
        cells = [row[:second], row[second:third], row[third:fourth]]
        cells.append("" if fourth is None else row[fourth:])
        # What stands deeper, or nowhere, goes on with the line above.
        if lines and (cells[1].startswith("  ") or not cells[1].strip()):
            lines[-1] = [
                f"{above} {cell.strip()}".strip()
                for above, cell in zip(lines[-1], cells, strict=True)
            ]
            continue
        phase = cells[0].strip() or lines[-1][0]
        lines.append([phase, *(cell.strip() for cell in cells[1:])])
    for phase, statement, lock, beside in lines:
        besides = f"; {beside} {other}" if beside not in ("", "none") else ""
        yield Line(Phase(phase), statement, f"{lock}{besides}")


def _section(text: str, head: str) -> str:
    """Return what stands indented under a heading of a docstring."""
    found: list[str] = []
    for row in text.partition(f"\n{head}\n")[2].split("\n"):
        if row and not row.startswith(" "):
            break
        found.append(row)
    return inspect.cleandoc("\n" + "\n".join(found))


def _arguments(text: str) -> Iterator[tuple[str, str]]:
    name, about = "", ""
    for row in text.split("\n"):
        if row.startswith(" "):
            about += f" {row.strip()}"
            continue
        if name:
            yield name, about
        name, _, about = row.partition(": ")
    yield name, about


def _type(given: Any) -> str:
    if given in (str, bool, int):
        return str(given.__name__)
    # As its name is imported, without the modules in front of it.
    return re.sub(r"\b(?:collections|migrator)\.[\w.]*\.", "", str(given))


def _default(given: "Field[Any]") -> str | None:
    if given.default is not MISSING:
        return repr(given.default)
    if given.default_factory is not MISSING:
        return repr(given.default_factory())
    return None


def _page(pattern: type[Pattern]) -> str:
    """Return the text of a pattern's page, which is installed with the program."""
    stem = pattern.__module__.rpartition(".")[2]
    return (files("migrator") / "pages" / f"{stem}.md").read_text("utf-8")


def _part(page: str, head: str) -> str:
    """Return what stands under a heading of a page."""
    return page.partition(f"\n## {head}\n")[2].partition("\n## ")[0].strip()


def _named(name: str) -> type[Pattern]:
    wanted = name.replace("_", "").replace("-", "").lower()
    for pattern in CATALOGUE:
        if pattern.__name__.lower() == wanted:
            return pattern
    known = ", ".join(pattern.__name__ for pattern in CATALOGUE)
    raise UsageError(
        f'There is no pattern "{name}".', next=f"take one of these: {known}."
    )


@group.command(**example("migrator patterns RenameColumn"))
@click.argument("name", required=False)
@json_option
def patterns(name: str | None, json: bool) -> None:
    """List the patterns, or show one with an example and its locks."""
    if name is not None:
        _show(Entry.of(_named(name)), json)
        return
    entries = [Entry.of(pattern) for pattern in CATALOGUE]
    if json:
        output.as_json(
            {"schema": JSON_SCHEMA, "patterns": [e.as_data() for e in entries]}
        )
        return
    output.table(
        ("pattern", "what it does", "phases", "strongest lock", "way back"),
        [
            (
                e.name,
                e.about,
                ", ".join(e.phases),
                str(e.strongest)
                if e.partitioned is None
                else f"{e.strongest}; {PARTITIONED}{e.partitioned}",
                e.reversible,
            )
            for e in entries
        ],
    )


def _import(text: str) -> str:
    """Return the import of what an example calls."""
    called = [name for name in __all__ if re.search(rf"\b{name}\(", text)]
    return f"from migrator.patterns import {', '.join(called)}"


def _show(entry: Entry, json: bool) -> None:
    if json:
        output.as_json(
            {
                "schema": JSON_SCHEMA,
                **entry.as_data(),
                "steps": [asdict(line) for line in entry.lines],
                "parameters": [asdict(p) for p in entry.parameters],
                "example": entry.example,
                "bad": entry.bad,
                "good": entry.good,
            }
        )
        return
    click.secho(output.wrapped(f"{entry.name}: {entry.about}"), bold=True)
    click.echo(f"Way back: {entry.reversible}.\n")
    output.table(
        ("phase", "statement", "lock"),
        [
            ("" if line.phase is before else line.phase, line.statement, line.lock)
            for before, line in zip(
                (None, *(line.phase for line in entry.lines)), entry.lines, strict=False
            )
        ],
    )
    click.echo()
    output.table(
        ("parameter", "type", "default", "what it is"),
        [
            (p.name, p.type, "required" if p.default is None else p.default, p.about)
            for p in entry.parameters
        ],
    )
    click.echo()
    for head, text in (
        ("Example", f"```\n{_import(entry.example)}\n\n{entry.example}\n```"),
        ("Bad", entry.bad),
        ("Good", entry.good),
    ):
        click.secho(head, bold=True)
        _show_page(text)


def _blocks(text: str) -> Iterator[str]:
    """Yield the code, paragraphs, items and tables of a page's part, one by one."""
    for number, part in enumerate(re.split(r"^```", f"{text}\n", flags=re.M)):
        if number % 2:
            yield f"```{part}"
        else:
            yield from re.split(r"\n\s*\n|\n(?=- )", part.strip("\n"))


def _show_page(text: str) -> None:
    """Print a part of a page: code as it stands, and prose in lines that fit."""
    for block in filter(None, _blocks(text)):
        if block.startswith("```"):
            code = block.partition("\n")[2].rstrip("\n")
            click.echo(textwrap.indent(code, INDENT))
        elif block.startswith("|"):
            cells = [row.strip("|").split("|") for row in block.split("\n")]
            rows = [[cell.strip() for cell in row] for row in cells]
            # Behind the head stands a line of dashes.
            output.table(rows[0], rows[2:], INDENT)
        else:
            click.echo(output.wrapped(" ".join(block.split()), INDENT))
        click.echo()
