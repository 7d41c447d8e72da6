"""Change what a domain allows, or its default, while tables use it.

phase   statement                          lock on each table
expand  SET DEFAULT                        none, no scan
verify  count of values that would be refused  ACCESS SHARE
retire  ADD CONSTRAINT … CHECK NOT VALID   none, no scan
        DROP CONSTRAINT                    none, no scan
        DROP NOT NULL, DROP DEFAULT        none, no scan

A check is added `NOT VALID` and left so: up to PostgreSQL 18, VALIDATE and SET NOT NULL
take SHARE on every table that has a column of the domain, and keep it while all of
them are read, so that nobody writes. What is there is counted, in chunks; whatever is
made from then on is held to the check, which is all that a domain's check does.

Source: PostgreSQL manual, ALTER DOMAIN; locks by pg_locks (tests).
"""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Domain, Facts, Kind
from migrator.kernels import constraints, domains, trials
from migrator.pattern import Pattern
from migrator.plan import Footprint, Notice, Probe, State, Step, Steps


@dataclass(frozen=True, slots=True)
class ChangeDomain(Pattern):
    """
    Change one thing about a domain.

    Example:
        change = ChangeDomain("price", add_check="VALUE > 0", name="price_positive")

    Args:
        table: the domain's name, without its schema.
        add_check: SQL condition over VALUE; where it is NULL, a value passes.
        name: the name of the added check.
        drop_check: the name of a check that goes.
        default: SQL expression, for columns without a default of their own.
        drop_default: whether its default goes.
        drop_not_null: whether its NOT NULL goes.
        schema: the domain's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    kind: ClassVar[Kind] = Kind.DOMAIN

    table: str
    _: KW_ONLY
    add_check: str | None = None
    name: str | None = None
    drop_check: str | None = None
    default: str | None = None
    drop_default: bool = False
    drop_not_null: bool = False
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        where = f'domain "{self.table}"'
        if self.add_check is not None:
            return f'add check "{self.name}" to {where}'
        if self.drop_check is not None:
            return f'drop check "{self.drop_check}" of {where}'
        if self.default is not None:
            return f"set the default of {where} to {self.default}"
        return f"drop the {'default' if self.drop_default else 'NOT NULL'} of {where}"

    @property
    def admission(self) -> State:
        """From expanded: what it may not write yet is refused until retire."""
        return State.EXPANDED

    def columns(self) -> frozenset[str] | None:
        """Return None: the whole domain."""
        return None

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the domain, and the columns of it."""
        used = domains.require(facts).columns
        return (
            Footprint(table=facts.table.name, columns=None),
            *(Footprint(table=t, columns=frozenset({column})) for t, column in used),
        )

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what is not one change, or is none on this domain."""
        domain = domains.require(facts)
        given = (
            self.add_check is not None,
            self.drop_check is not None,
            self.default is not None,
            self.drop_default,
            self.drop_not_null,
        )
        if sum(given) != 1 or (self.add_check is None) != (self.name is None):
            raise Refused(
                f'A change of domain "{self.table}" says {sum(given)} things.',
                next="give one of add_check= with name=, drop_check=, default=,"
                " drop_default= and drop_not_null=.",
            )
        self._check(facts, domain)
        if self.default is not None:
            text = "From expand on columns without a default of their own take it."
            return (Notice(text=text),)
        domains.require_countable(facts)
        told = [Notice(text=self._told)]
        return self.assure((*told, *domains.notices(facts)))

    @property
    def _told(self) -> str:
        if self.add_check is not None:
            return (
                "Nothing is refused before retire. The check stays NOT VALID, since its"
                " validation would stop all writers of these tables: what is there is"
                " counted, and a statement that runs across retire is not held to it."
            )
        if self.drop_default:
            return "From retire on columns without a default of their own have none."
        return (
            "Until retire what is to be allowed is refused, also from the new release."
            " Going back adds a check NOT VALID, and is refused while values violate"
            " it."
        )

    def _check(self, facts: Facts, domain: Domain) -> None:
        where = f"Domain {facts.table.name}"
        gone = "remove the change from the revision."
        if self.name is not None:
            names.checked(self.name, "constraint")
            self._require_free(
                facts, self.name, "choose another name, or drop it first."
            )
        if self.drop_check is not None and domain.check(self.drop_check) is None:
            known = ", ".join(f'"{c.name}"' for c in domain.checks) or "none"
            raise Refused(
                f'{where} has no check "{self.drop_check}".',
                next=f"correct the name; it has {known}.",
            )
        if self.drop_default and domain.default is None:
            raise Refused(f"{where} has no default.", next=gone)
        held = domain.not_null or domain.check(self._held) is not None
        if self.drop_not_null and not held:
            raise Refused(f"{where} allows NULL already.", next=gone)

    @staticmethod
    def _require_free(facts: Facts, name: str, next: str) -> None:
        if domains.require(facts).check(name) is not None:
            raise Refused(
                f'Domain {facts.table.name} has a check "{name}" already.', next=next
            )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trials of the check, or of the default, on a domain like it."""
        domain = domains.require(facts)
        if self.default is not None:
            like = Column(name=self.table, type=str(facts.table.name))
            return (trials.default_gives_value(self.title, like, self.default),)
        if self.add_check is None or self.name is None:
            return ()
        made = domains.trial(domain, self.name, self.add_check)
        trial = sql.Identifier("migrator_trial")
        table = f"CREATE TEMP TABLE migrator_trial (value {domain.type})"
        tables = {t.name: facts.of(t) for t in facts.others}
        return (
            Probe(statements=(made,), question="SELECT true", otherwise=""),
            trials.depends_on_row(self.title, table, trial, self.add_check),
            *(
                trials.computes_on_rows(
                    table, tables[name], trial, self.add_check, column
                )
                for name, column in domain.columns
            ),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the default; the old release may rely on all the rest."""
        if self.default is None:
            return ()
        return (domains.set_default(facts, self.default),)

    def verify(self, facts: Facts) -> Steps:
        """Return the counts of values that the check would refuse."""
        if self.add_check is None:
            return ()
        return domains.violations(facts, self.add_check)

    def retire(self, facts: Facts) -> Steps:
        """
        Return the change, once no old release is left.

        Raises:
            Refused: another check got the name since.
        """
        if self.add_check is not None and self.name is not None:
            self._require_free(facts, self.name, constraints.RENAME_OR_DROP)
            return (
                Step(
                    name="add_check",
                    work=domains.add_check(facts, self.name, self.add_check),
                    reverse=(domains.drop_check(facts, self.name),),
                ),
            )
        if self.drop_check is not None:
            found = domains.require(facts).check(self.drop_check)
            again = found.definition if found else ""
            return (
                Step(
                    name="drop_check",
                    work=domains.drop_check(facts, self.drop_check),
                    reverse=(domains.check_again(facts, self.drop_check, again),),
                ),
            )
        if self.drop_not_null:
            back = domains.check_again(facts, self._held, "VALUE IS NOT NULL")
            lifted = domains.altered(facts, sql.SQL("DROP NOT NULL"))
            if not domains.require(facts).not_null:
                # A way back has left the check.
                lifted = domains.drop_check(facts, self._held)
            return (Step(name="drop_not_null", work=lifted, reverse=(back,)),)
        return (domains.set_default(facts, None),) if self.drop_default else ()

    @property
    def _held(self) -> str:
        """The name of the check that stands for NOT NULL after a way back."""
        return names.fitted(self.table, "_not_null")

    def rebuild(self, facts: Facts) -> Steps:
        """Return the drop of the check; the rest is rolled back."""
        if self.name is None:
            return ()
        gone = domains.drop_check(facts, self.name)
        return (Step(name="drop_check", work=gone, no_reverse="upgrade again"),)
