"""What every pattern is: a declaration that turns facts into steps."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, ClassVar

from migrator import names
from migrator.errors import Misdeclared, Refused, UsageError
from migrator.facts import Facts, Kind, Table
from migrator.final import Final
from migrator.names import TableName
from migrator.plan import Footprint, Notice, Phase, Probe, Reach, State, Steps

#: What stands in a form to paste where a person has to give a value.
OPEN = "…"


class Pattern(ABC):
    """
    Base of every pattern; subclasses are frozen dataclasses.

    A pattern never executes. Each phase's method takes the facts of that
    moment and returns the steps of that phase.
    """

    __slots__ = ()

    #: Until when it can be taken back, where its phases do not tell: until the
    #: drop where it has one, else always.
    reversible: ClassVar[str] = ""

    #: Whether both sides are in step up to the drop, and compared again before it.
    compares_before_drop: ClassVar[bool] = False
    #: What `subject` names.
    kind: ClassVar[Kind] = Kind.TABLE

    table: str
    schema: str | None
    assured: str

    @property
    def subject(self) -> tuple[str, str | None]:
        """The name of what is changed, and its schema if it is given."""
        return self.table, self.schema

    @property
    @abstractmethod
    def title(self) -> str:
        """One line that names the change."""

    @property
    def admission(self) -> State:
        """The state from which the new release may be let in."""
        return State.VERIFIED

    @abstractmethod
    def columns(self) -> frozenset[str] | None:
        """
        Return the columns it touches, None for the whole table.

        An index stands among them by its own name, where no column is touched.
        """

    @abstractmethod
    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """
        Return what a reviewer should know.

        Raises:
            Refused: the change cannot work on these facts.
        """

    def others(self, known: tuple[Table, ...]) -> tuple[tuple[str, str | None], ...]:
        """
        Return further tables of which it needs facts: name and schema.

        Args:
            known: the table's facts, then those of the tables that it named so far;
                it is asked until it names no more.
        """
        return ()

    def makes(self, table: TableName, tag: str) -> tuple[TableName, ...]:
        """
        Return the tables and views that the change makes, to have facts of them.

        Args:
            table: the change's table.
            tag: the change's tag.
        """
        return ()

    def places(self, table: TableName, tag: str) -> tuple[TableName, ...]:
        """
        Return the names under which its table may stand, the likeliest first.

        Args:
            table: the name that it had when the change was planned.
            tag: the change's.
        """
        return (names.retired(table, tag), table)

    def questions(self, facts: Facts) -> Mapping[str, Probe]:
        """
        Return trials whose outcome decides between ways; facts bear the answers.

        They are asked each time that facts are read.
        """
        return {}

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return trials whose question is answered by a text; facts bear them."""
        return {}

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return trials of the user's SQL, run before anything is changed."""
        return ()

    @abstractmethod
    def expand(self, facts: Facts) -> Steps:
        """Return additive steps that the old release cannot violate."""

    def backfill(self, facts: Facts) -> Steps:
        """Return the steps that bring existing rows across."""
        return ()

    def verify(self, facts: Facts) -> Steps:
        """Return the steps that compare both sides."""
        return ()

    def retire(self, facts: Facts) -> Steps:
        """Return the steps that take the old shape out of sight."""
        return ()

    def drop(self, facts: Facts) -> Steps:
        """Return the irreversible steps."""
        return ()

    def rebuild(self, facts: Facts) -> Steps:
        """
        Return steps that bring the old shape back after a drop.

        No release runs then. A change without a drop is rolled back instead.
        """
        return ()

    def expressions(self) -> tuple[str, ...]:
        """Return the SQL expressions that a trigger of the change computes of a row."""
        return ()

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return what the change touches, for the test of overlaps."""
        return (Footprint(table=facts.table.name, columns=self.columns()),)

    def mentioned(self) -> frozenset[str]:
        """Return the words of its expressions that may be further columns."""
        columns = self.columns()
        if columns is None:
            return frozenset()
        return frozenset().union(*map(names.mentioned, self.expressions())) - columns

    def beside(self) -> tuple[Reach, ...]:
        """Return what the declaration names besides its subject."""
        return ()

    def reaches(self) -> tuple[Reach, ...]:
        """Return what it touches as far as that is known without a database."""
        table, schema = self.subject
        mine = Reach(table=table, schema=schema, columns=self.columns())
        if not (read := self.mentioned()):
            return (mine, *self.beside())
        needed = Reach(table=table, schema=schema, columns=read, needed=True)
        return (mine, needed, *self.beside())

    def final(self) -> Final | None:
        """Return what is left of it in the end, None where the catalogue is silent."""
        return None

    def renames(self) -> Mapping[str, str]:
        """Return constraints and indexes that it renames, by their former names."""
        return {}

    @property
    def ends_at_expand(self) -> bool:
        """
        Whether expand is all of it, as far as the declaration tells.

        Such a change is never in flight when the next one comes.
        """
        own = type(self)
        later = ("backfill", "verify", "retire", "drop")
        return all(getattr(own, name) is getattr(Pattern, name) for name in later)

    def steps(self, phase: Phase, facts: Facts) -> Steps:
        """Return the steps of one phase."""
        return {
            Phase.EXPAND: self.expand,
            Phase.BACKFILL: self.backfill,
            Phase.VERIFY: self.verify,
            Phase.RETIRE: self.retire,
            Phase.DROP: self.drop,
        }[phase](facts)

    def parameters(self) -> dict[str, Any]:
        """Return the declaration as plain data."""
        # A frozen dataclass in every subclass, which an ABC cannot state.
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def require_plain(self) -> None:
        """
        Refuse a declaration that the ledger could not keep.

        Raises:
            UsageError: a parameter is no text, number or collection of them, or no
                text where one is meant.
            Misdeclared: one is still to be given.
        """
        self.require_whole()
        own = type(self).__name__
        for name, value in self.parameters().items():
            try:
                json.dumps(value)
            except TypeError:
                raise UsageError(
                    f"{own}: {name} is {value!r}, which is neither text nor a number.",
                    next='write types and expressions as SQL text: "bigint", not'
                    " BigInteger().",
                ) from None
        types = {f.name: f.type for f in fields(self)}  # type: ignore[arg-type]
        for name, value in self.parameters().items():
            if types[name] is str and not isinstance(value, str):
                raise UsageError(
                    f"{own}: {name} is {value!r}, and has to be one text.",
                    next=f"`migrator patterns {own}` shows the parameters in their"
                    " order, with an example.",
                )

    def require_whole(self) -> None:
        """
        Refuse a declaration in which a value is still to be given.

        Raises:
            Misdeclared: a parameter is, or holds, the "…" of a form to paste.
        """
        left = [name for name, value in self.parameters().items() if _is_open(value)]
        if left:
            raise Misdeclared(
                f"{type(self).__name__}: {', '.join(left)} still"
                f' {"has" if len(left) == 1 else "have"} the "{OPEN}" of a form, in'
                " place of a value.",
                next=f'write what is meant in place of each "{OPEN}".',
            )

    def digest(self) -> str:
        """Return a digest of the declaration, to notice later edits."""
        declared = [type(self).__name__, self.parameters()]
        # What is no plain data is refused by who runs it, and told by who does not.
        text = json.dumps(declared, sort_keys=True, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, recorded: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """
        Return the parameters that say something else than those of a record.

        One that the record does not have is as by default: a later release of the
        toolkit has added it.

        Args:
            recorded: parameters of the same pattern, as plain data.

        Returns:
            The values of each, first the recorded one.
        """
        # A frozen dataclass in every subclass, which an ABC cannot state.
        declared = fields(self)  # type: ignore[arg-type]
        by_default = {
            f.name: f.default_factory() if callable(f.default_factory) else f.default
            for f in declared
            if f.default is not MISSING or f.default_factory is not MISSING
        }
        then = {**_plain(by_default), **recorded}
        now = _plain(self.parameters())
        return {
            name: (then.get(name), value)
            for name, value in now.items()
            if name not in then or then[name] != value
        }

    def assure(self, notices: tuple[Notice, ...]) -> tuple[Notice, ...]:
        """
        Return the notices, if none of them still needs a person's word.

        Raises:
            Refused: one needs `assured="reason"` and there is none.
        """
        open_points = [n.text for n in notices if n.needs_assurance]
        if open_points and not self.assured:
            raise Refused(
                f"{self.title}: " + " ".join(open_points),
                next='look into it, then write assured="why it is safe here" into'
                " the pattern.",
            )
        return notices


def _is_open(value: Any) -> bool:
    """Tell whether a value is to be given, or holds one that is."""
    if isinstance(value, str):
        return value.strip() == OPEN
    if isinstance(value, Mapping):
        return any(_is_open(v) for pair in value.items() for v in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_is_open, value))
    if is_dataclass(value) and not isinstance(value, type):
        return any(_is_open(getattr(value, f.name)) for f in fields(value))
    return False


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as the ledger gives them back."""
    found: dict[str, Any] = json.loads(json.dumps(parameters, default=repr))
    return found


@dataclass(frozen=True, slots=True)
class Undecided(Pattern):
    """
    A change that a person has to choose first; it can be told, and never run.

    Args:
        choice: what has to be decided, to follow "decide".
        file: the revision's file.
        line: its line, from 1.
    """

    choice: str
    file: str
    line: int

    @property
    def title(self) -> str:
        """One line that names the choice."""
        return f"decide {self.choice}"

    @property
    def subject(self) -> tuple[str, str | None]:
        """Refuse: what is changed is not known."""
        raise self.refusal()

    def columns(self) -> frozenset[str] | None:
        """Refuse: what is changed is not known."""
        raise self.refusal()

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse: what is changed is not known."""
        raise self.refusal()

    def expand(self, facts: Facts) -> Steps:
        """Refuse: what is changed is not known."""
        raise self.refusal()

    def require_plain(self) -> None:
        """Refuse: what is changed is not known."""
        raise self.refusal()

    def refusal(self) -> Refused:
        """Return the error that says where which choice is open."""
        return Refused(
            f"{self.file}, line {self.line}: nobody has decided yet {self.choice}.",
            next="uncomment the alternative that is meant, above that line, complete"
            " it, and delete the line.",
        )
