"""Give a view another definition.

phase     statement                              lock on the view
expand    CREATE OR REPLACE VIEW                 ACCESS EXCLUSIVE, no scan
          or CREATE VIEW, under another name     none, no scan
retire    then: RENAME TO, of one or both        ACCESS EXCLUSIVE, no scan
drop      then: DROP VIEW, the old one           ACCESS EXCLUSIVE, no scan

CREATE OR REPLACE takes a query whose columns are the view's, in name, type and order,
and then further ones: such a definition takes the place at expand. Any other one gets
a name of its own. What hangs on the view (privileges, options, defaults, INSTEAD OF
triggers, comments, the owner) stays, or is given on. Tables that it reads are locked
ACCESS SHARE.

Source: PostgreSQL manual, CREATE VIEW; LOCK, Description.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts, Kind
from migrator.kernels import direct, replaced, row_types, views
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import (
    Footprint,
    Notice,
    Probe,
    Reach,
    State,
    Step,
    Steps,
    Transaction,
    render,
)


@dataclass(frozen=True, slots=True)
class ReplaceView(Pattern):
    """
    Let `view` be what `definition` queries.

    Example:
        change = ReplaceView("sales", "SELECT id, total, paid_at FROM orders")

    Args:
        view: the view's name, without its schema.
        definition: its new query.
        new_name: the name under which the new release reads a query whose columns are
            others; None exchanges it at retire, under the name that the view has.
        schema: the view's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    reversible: ClassVar[str] = "always, unless others read it"
    kind: ClassVar[Kind] = Kind.VIEW

    view: str
    definition: str
    _: KW_ONLY
    new_name: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def subject(self) -> tuple[str, str | None]:
        """The view."""
        return self.view, self.schema

    @property
    def title(self) -> str:
        """One line that names the change."""
        other = f' by "{self.new_name}"' if self.new_name is not None else ""
        return f'replace view "{self.view}"{other}'

    @property
    def admission(self) -> State:
        """From expanded, which has the new definition."""
        return State.EXPANDED

    def columns(self) -> None:
        """Return None: all of it."""
        return

    def beside(self) -> tuple[Reach, ...]:
        """Return the new view."""
        if self.new_name is None:
            return ()
        return (Reach(table=self.new_name, schema=self.schema),)

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the view, and the new one."""
        view, aside, _ = self._names(facts)
        return tuple(Footprint(table=t, columns=None) for t in (view, aside))

    def questions(self, facts: Facts) -> dict[str, Probe]:
        """Return what decides whether the view can take the definition."""
        return views.questions(facts, self.definition)

    def readings(self, facts: Facts) -> dict[str, Probe]:
        """Return how the server spells the definition."""
        return {_MADE: views.reading(self.definition)}

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial of the definition."""
        view, _, _ = self._names(facts)
        return views.probes(self.title, facts, view, self.definition)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what is no view, and what could not be taken back or given on."""
        views.require_view(facts)
        view, aside, _ = self._names(facts)
        if self.new_name is not None and self.new_name in facts.relation_names:
            raise Refused(
                f"There is a relation {aside} already.", next="choose another name."
            )
        longer = self._in_place(facts) and not _same_columns(facts)
        if not views.answer(facts, "no_rules") and not (
            self._in_place(facts) and _same_columns(facts)
        ):
            raise Refused(
                f"View {view} has rules, which are not given on to another one.",
                next="make INSTEAD OF triggers of them first.",
            )
        if self.new_name is None and not self._in_place(facts):
            self._require_unread(facts)
        return self.assure(tuple(self._notices(facts, longer=longer)))

    def _require_unread(self, facts: Facts) -> None:
        """Refuse a view with readers that would keep the old one in its place."""
        view, aside, _ = self._names(facts)
        if facts.table.dependents and aside.name not in facts.relation_names:
            raise Refused(
                f"View {view} is used by {'; '.join(facts.table.dependents)}, which"
                " would go on with the old one: retire could not put another one, with"
                " columns that go or change, under its name.",
                next='give new_name="…": what reads the view can then be made again'
                " over the new one, each at its time before retire. Or drop what reads"
                " it first, and make it again after retire.",
            )

    def _notices(self, facts: Facts, *, longer: bool) -> Iterator[Notice]:
        view, aside, _ = self._names(facts)
        if self._in_place(facts):
            yield Notice(
                text="Both releases read the new definition from expand on."
                + (
                    " A prepared SELECT * of the old release fails once it has further"
                    " columns."
                    if longer
                    else ""
                )
            )
        elif self.new_name is not None:
            yield Notice(
                text=f"The new release reads {aside}; what depends on view {view} has"
                " to leave it before retire."
            )
        else:
            yield Notice(
                text=f"Columns of view {view} go, or change their type or place: the"
                " new release meets the old ones up to retire, and the new ones from"
                " then on, under one name.",
                needs_assurance=True,
            )
        if longer:
            yield from row_types.breaks(facts)
        if longer and facts.table.dependents:
            yield Notice(
                text="It gets further columns, which do not come off while something"
                f" depends on it ({'; '.join(facts.table.dependents)}): there is no way"
                ' back. With new_name="…" there is one.',
                needs_assurance=True,
            )
        if not views.answer(facts, "writable"):
            yield Notice(
                text="Not all that can be written through the view can be through its"
                " new definition.",
                needs_assurance=True,
            )
        kept = {a.column for a in views.carried(facts)}
        lost = sorted({a.column or "" for a in facts.attached} - kept - {""})
        if lost:
            listed = ", ".join(f'"{name}"' for name in lost)
            yield Notice(text=f"What hangs on columns that go, goes along: {listed}.")

    def expand(self, facts: Facts) -> Steps:
        """Return the view in its new form, or the new one beside it."""
        view, aside, _ = self._names(facts)
        made = facts.texts.get(_MADE)
        if not self._in_place(facts):
            make = Transaction(
                statements=(
                    replaced.path(facts),
                    *map(render, _view(facts, aside, self.definition, carried=True)),
                )
            )
            back = views.step(
                facts,
                aside,
                views.drop(aside),
                refusals=(views.unused(aside, _LEFT), *views.changed(aside, made)),
            )
            return (Step(name="create_view", work=make, reverse=(back,)),)
        lost = replaced.given_on(
            tuple(a for a in facts.attached if not a.stays), view.identifier
        )
        work = views.step(
            facts,
            view,
            views.create(view, self.definition, again=True),
            *lost,
            path=replaced.path(facts),
        )
        if not _same_columns(facts) and facts.table.dependents:
            return (
                Step(
                    name="replace_view",
                    work=work,
                    no_reverse="further columns do not come off a view that others"
                    " read; the new definition stays",
                    loses=True,
                ),
            )
        written = views.changed(view, made, facts.definition)
        if _same_columns(facts):
            old = views.create(view, facts.definition, again=True)
            back = views.step(facts, view, old, *lost, refusals=written)
        else:
            # No statement takes a column off a view.
            back = views.step(
                facts,
                view,
                views.drop(view),
                *_view(facts, view, facts.definition),
                refusals=(views.unused(view, _LEFT), *written),
            )
        return (Step(name="replace_view", work=work, reverse=(back,)),)

    def retire(self, facts: Facts) -> Steps:
        """Return the rename out of sight, and that of the new one in its place."""
        if self._in_place(facts):
            return ()
        view, aside, retired = self._names(facts)
        swapped = self.new_name is None
        move = [(view, retired), *([(aside, view)] if swapped else [])]
        back = [(new, old) for old, new in reversed(move)]
        return (
            Step(
                name="retire_view",
                work=views.step(
                    facts,
                    view,
                    *([views.same_privileges(view, aside)] if swapped else []),
                    *(views.rename(old, new) for old, new in move),
                    also=(aside,) if swapped else (),
                    refusals=(views.unused(view, _MOVE),),
                ),
                reverse=(
                    views.step(
                        facts,
                        view if swapped else retired,
                        *([views.same_privileges(view, retired)] if swapped else []),
                        *(views.rename(new, old) for new, old in back),
                        also=(retired,) if swapped else (),
                        refusals=() if swapped else (direct.name_taken(view),),
                    ),
                ),
            ),
        )

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the old view; nothing is lost but its name."""
        if self._in_place(facts):
            return ()
        _, _, retired = self._names(facts)
        return (
            Step(
                name="drop_view",
                work=views.step(
                    facts,
                    retired,
                    views.drop(retired),
                    refusals=(views.unused(retired, _MOVE),),
                ),
                reverse=(
                    Transaction(
                        statements=(
                            replaced.FULL_NAMES,
                            *map(render, _view(facts, retired, facts.definition)),
                        )
                    ),
                ),
            ),
        )

    def _in_place(self, facts: Facts) -> bool:
        """Tell whether the view takes the definition; one beside it tells that not."""
        _, aside, retired = self._names(facts)
        begun = not {aside.name, retired.name}.isdisjoint(facts.relation_names)
        asked = views.answer(facts, "in_place")
        return self.new_name is None and asked and not begun

    def _names(self, facts: Facts) -> tuple[TableName, TableName, TableName]:
        """Return the names of the view, of the new one beside it, and after retire."""
        view = TableName(facts.table.name.schema, self.view)
        beside = names.owned("view", self.view, facts.tag)
        if self.new_name is not None:
            beside = names.checked(self.new_name, "view")
        return view, TableName(view.schema, beside), names.retired(view, facts.tag)


# The key of how the server spells the definition.
_MADE = "made"
_LEFT = "drop what depends on it, or let it read another one; then run it again."
_MOVE = "let what depends on it read the new view, then run the same command again."


def _same_columns(facts: Facts) -> bool:
    return views.answer(facts, "same_columns")


def _view(
    facts: Facts, name: TableName, text: str | None, *, carried: bool = False
) -> tuple[sql.Composable, ...]:
    """Return the statements that make a view, with what hangs on the old one."""
    attached = views.carried(facts) if carried else facts.attached
    return (
        views.create(name, text),
        *replaced.given_on(attached, name.identifier),
    )
