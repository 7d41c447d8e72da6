"""Set a parameter of the server, for a database, a role or all of it.

phase     statement                                    lock on a table
expand    ALTER DATABASE, ROLE or SYSTEM … SET         none, no scan
          pg_reload_conf(), for SYSTEM                 none, no scan

Sessions that begin afterwards have it; for the whole server, all of them after the
reload. The value before is read where it is kept (pg_db_role_setting, or
postgresql.auto.conf) and is put back by a rollback; where there was none, RESET.

Source: PostgreSQL manual, ALTER DATABASE, ALTER ROLE, ALTER SYSTEM; section 20.1.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from psycopg import sql

from migrator.errors import Refused, UsageError
from migrator.facts import Facts, Kind
from migrator.kernels import parameters
from migrator.pattern import Pattern
from migrator.plan import Notice, Probe, State, Step, Steps, Transaction

# What holds a secret, or may; the ledger would keep it, and `plan` print it.
_SECRET = {
    "archive_cleanup_command",
    "archive_command",
    "primary_conninfo",
    "recovery_end_command",
    "restore_command",
    "ssl_passphrase_command",
}
# Words in the name of one of an application's own that tell the same.
_SECRET_WORDS = ("credential", "key", "passphrase", "passw", "secret", "token")
# With these a session of the engine could not take them back.
_LOCKS_OUT = {"default_transaction_read_only", "transaction_read_only"}
# With a library that is not there no session can begin at all.
_SHUTS_OUT = {"local_preload_libraries", "session_preload_libraries"}
# With such a one the server does not start.
_KEEPS_DOWN = {"shared_preload_libraries"}


@dataclass(frozen=True, slots=True)
class SetParameter(Pattern):
    """
    Set `name` to `value`.

    Example:
        change = SetParameter("work_mem", "64MB", role="reports")

    Args:
        name: the parameter's name, e.g. `"work_mem"`, or one of your own with a dot.
        value: as in the configuration file, a list as one text; None resets it.
        database: the database in which it holds; with a role, for that role there.
        role: the role for which it holds.
        system: for the whole server, in postgresql.auto.conf. Where none of these is
            given, it holds in the database of the connection.
        assured: why hazards that need a person's word are none here.
    """

    reversible: ClassVar[str] = "always"
    kind: ClassVar[Kind] = Kind.SETTING

    name: str
    value: str | None
    _: KW_ONLY
    database: str | None = None
    role: str | None = None
    system: bool = False
    assured: str = ""

    @property
    def subject(self) -> tuple[str, str | None]:
        """The parameter, and where it is set."""
        return self.name, self._scope

    @property
    def title(self) -> str:
        """One line that names the change."""
        what = "reset" if self.value is None else "set"
        to = "" if self.value is None else f" to {self.value!r}"
        return f"{what} {self.name}{to} of {self._scope or 'this database'}"

    @property
    def admission(self) -> State:
        """From expanded, which sets it."""
        return State.EXPANDED

    def columns(self) -> None:
        """Return None: all of it."""
        return

    def questions(self, facts: Facts) -> dict[str, Probe]:
        """Return what the parameter is like."""
        return parameters.questions(facts.table.name)

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial of the value."""
        return parameters.probes(self.title, facts.table.name, self.value)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what cannot be set there, or must not be kept in the ledger."""
        name, answers = facts.table.name.name.lower(), facts.answers
        if self.system and (self.database is not None or self.role is not None):
            raise UsageError(
                f"{self.title}: it is to hold for the whole server and for less.",
                next="give system=True, or database= and role=.",
            )
        own = "." in name and any(word in name for word in _SECRET_WORDS)
        if name in _SECRET or own:
            raise Refused(
                # Not the title, which has the value.
                f"Parameter {name} may hold a secret, which plans and the ledger would"
                " show.",
                next="set it by hand.",
            )
        if name in _LOCKS_OUT:
            raise Refused(
                f"{self.title}: then no session could write, to take it back either.",
                next="set it by hand.",
            )
        if name in _SHUTS_OUT and self.value is not None:
            raise Refused(
                f"{self.title}: where the server cannot load one of them, no session"
                " begins any more, of a release or to take it back.",
                next="set it by hand, from a session that stays open, and try another"
                " one at once.",
            )
        if answers.get("fixed", False):
            raise Refused(
                f"{self.title}: {name} is fixed in this server; it only tells.",
                next="leave it.",
            )
        if not self.system and (answers.get("restarts") or answers.get("reloads")):
            raise Refused(
                f"{self.title}: {name} is one of the whole server.",
                next="give system=True.",
            )
        items = () if self.value is None else parameters.items(name, self.value)
        if name in _KEEPS_DOWN and "" in items:
            raise Refused(
                f"{self.title}: the server keeps an empty list as a library without a"
                " name, and does not start again.",
                next="write None, which resets it to what postgresql.conf says.",
            )
        return self.assure(tuple(self._notices(facts)))

    def _notices(self, facts: Facts) -> Iterator[Notice]:
        if facts.answers.get("restarts"):
            yield Notice(
                text="It waits for the next start of the server, which may fail with a"
                " value that does not fit the machine; then the line in"
                " postgresql.auto.conf has to go by hand.",
                needs_assurance=True,
            )
        elif self.system:
            yield Notice(text="All sessions have it after the reload.")
        else:
            yield Notice(
                text="Sessions that begin after it have it, of both releases; those of"
                " a pool stay as they are."
            )
        if facts.answers.get("narrower"):
            yield Notice(text="It is set for a role or database as well: that counts.")
        if facts.table.name.name == "search_path":
            yield Notice(
                text="Names without a schema mean others from then on, also in later"
                " changes.",
                needs_assurance=True,
            )

    def expand(self, facts: Facts) -> Steps:
        """Return the assignment, and the reload of the configuration."""
        setting = facts.table.name
        back = parameters.put_back(setting, self.value, facts.definition)
        reload = Transaction(statements=("SELECT pg_catalog.pg_reload_conf()",))
        to = parameters.change(setting, self.value)
        if setting.schema != parameters.SYSTEM:
            return (Step(name="set_parameter", work=to, reverse=(back,)),)
        return (
            Step(name="set_parameter", work=to, reverse=(back, reload)),
            Step(
                name="reload",
                work=reload,
                no_reverse="the step before reloads as it is taken back",
            ),
        )

    @property
    def _scope(self) -> str | None:
        """Where it is set, as DDL says it; None for the connection's database."""
        if self.system:
            return parameters.SYSTEM
        given = (("ROLE", self.role), ("DATABASE", self.database))
        return (
            " IN ".join(
                f"{word} {sql.Identifier(name).as_string()}"
                for word, name in given
                if name is not None
            )
            or None
        )
