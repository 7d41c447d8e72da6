"""Give a function or procedure another text.

phase     statement                              lock on what an SQL body names
expand    CREATE OR REPLACE FUNCTION             ACCESS SHARE, no scan
drop      DROP ROUTINE, where another replaced   none, no scan

Where arguments and result stay, both releases call one function, and the text has to
serve both. One with other arguments is another function: it stands beside the old one,
with its privileges, until the drop. Calls that are under way end with the text with
which they began.

Source: PostgreSQL manual, CREATE FUNCTION, Notes; section 10.3 (which one is called).
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from migrator.errors import Refused
from migrator.facts import Facts, Kind
from migrator.kernels import functions, replaced
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import Footprint, Notice, Probe, Reach, State, Step, Steps


@dataclass(frozen=True, slots=True)
class ReplaceFunction(Pattern):
    """
    Let `definition` make what `function` is, or what takes its place.

    Example:
        change = ReplaceFunction(
            "total(integer)",
            "CREATE OR REPLACE FUNCTION total(customer integer) RETURNS bigint"
            " LANGUAGE sql STABLE"
            " AS 'SELECT sum(price) FROM orders WHERE orders.customer = $1'",
        )

    Args:
        function: its name and the types of its arguments, as SQL, without its schema.
        definition: the whole CREATE OR REPLACE statement.
        new_function: name and types of what it makes, where they are others.
        schema: the function's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    reversible: ClassVar[str] = "always"
    kind: ClassVar[Kind] = Kind.FUNCTION

    function: str
    definition: str
    _: KW_ONLY
    new_function: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def subject(self) -> tuple[str, str | None]:
        """The function."""
        return self.function, self.schema

    @property
    def title(self) -> str:
        """One line that names the change."""
        other = f" by {self.new_function}" if self.new_function is not None else ""
        return f"replace function {self.function}{other}"

    @property
    def admission(self) -> State:
        """From expanded, which has the new text."""
        return State.EXPANDED

    @property
    def ends_at_expand(self) -> bool:
        """One with the same arguments takes the place of the old one at once."""
        return self.new_function is None

    def columns(self) -> None:
        """Return None: all of it."""
        return

    def beside(self) -> tuple[Reach, ...]:
        """Return the new function."""
        if self.new_function is None:
            return ()
        return (Reach(table=self.new_function, schema=self.schema),)

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the function, and the new one."""
        both = dict.fromkeys((facts.table.name, self._made(facts)))
        return tuple(Footprint(table=name, columns=None) for name in both)

    def questions(self, facts: Facts) -> dict[str, Probe]:
        """Return what the new text is like beside the old one."""
        return functions.questions(facts, self._made(facts), self.definition)

    def readings(self, facts: Facts) -> dict[str, Probe]:
        """Return what the server makes of the new text."""
        in_place = self.new_function is None
        path = replaced.FULL_NAMES if in_place else replaced.path(facts)
        made = self._made(facts)
        return functions.readings(facts, made, self.definition, path=path)

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial of the text, and of the way back."""
        made = self._made(facts)
        makes = functions.makes(
            made,
            self.definition,
            otherwise=f"{self.title}: its definition makes another function than"
            f" {made.name} of schema {made.schema}.",
            next="write the name that it makes, with its schema; where the arguments"
            ' are others, give new_function="name(types)".',
            failed=f"{self.title}: the server refuses its definition",
        )
        if self.new_function is not None:
            return (makes,)
        back = functions.goes_back(
            facts,
            self.definition,
            next="leave arguments without a name or default as they are; or let it"
            " make another function, and give new_function=….",
            failed=f"{self.title}: it could not be taken back",
        )
        return makes, back

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what is no function with a text."""
        if facts.definition is None:
            raise Refused(
                f"{facts.table.name.name} is an aggregate, or no function any more.",
                next="name a function or a procedure.",
            )
        return self.assure(tuple(self._notices(facts)))

    def _notices(self, facts: Facts) -> Iterator[Notice]:
        # Where the text is refused a probe tells why.
        answers = facts.answers if facts.answers.get("defined", True) else {}
        if self.new_function is None:
            yield Notice(text="Both releases call the new text from expand on.")
        else:
            yield Notice(
                text=f"The new release calls {self.new_function}. Functions that call"
                f" {self.function} by its name are not known: they fail after the drop."
            )
        if self.new_function is None and not answers.get("unstored", True):
            yield Notice(
                text="An index, a constraint, a generated column or a partition was"
                " computed by it: what is stored is not computed anew.",
                needs_assurance=True,
            )
        if differs := facts.texts.get("differs"):
            yield Notice(text=f"The new text has other attributes: {differs}.")
        if not answers.get("secure", True):
            yield Notice(
                text="It loses SECURITY DEFINER, or a parameter that is SET for it:"
                " both are taken from the new text alone.",
                needs_assurance=True,
            )
        if self.new_function is not None and not answers.get("apart", True):
            yield Notice(
                text=f"Calls of {self.function} whose arguments have no type of their"
                " own, or another one, may come to mean the new one.",
                needs_assurance=True,
            )

    def expand(self, facts: Facts) -> Steps:
        """Return the new text."""
        made, known = self._made(facts), facts.texts.get("made")
        if self.new_function is None:
            changed = functions.changed(
                made, known, facts.definition, next=replaced.IN_PLACE
            )
            return (
                Step(
                    name="replace_function",
                    work=functions.made(facts, self.definition),
                    reverse=(functions.restored(facts, refusals=changed),),
                ),
            )
        hung = replaced.given_on(facts.attached, functions.identifier(made))
        return (
            Step(
                name="create_function",
                work=functions.made(facts, self.definition, *hung),
                reverse=(
                    functions.drop(
                        facts,
                        made,
                        _NEXT,
                        *functions.changed(made, known, next=replaced.BESIDE),
                    ),
                ),
            ),
        )

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the old one, which its text makes again."""
        if self.new_function is None:
            return ()
        old = facts.table.name
        hung = replaced.given_on(facts.attached, functions.identifier(old))
        taken = functions.changed(old, facts.definition, "", next=_TAKEN)
        return (
            Step(
                name="drop_function",
                work=functions.drop(facts, old, _NEXT),
                reverse=(functions.restored(facts, *hung, refusals=taken),),
            ),
        )

    def _made(self, facts: Facts) -> TableName:
        old = facts.table.name
        if self.new_function is None:
            return old
        return TableName(old.schema, self.new_function)


_NEXT = "let them use the other one, then run the same command again."
_TAKEN = "drop or rename that one, then run the same command again."
