"""A project's Alembic environment: its database, and the changes it holds."""

import ast
import configparser
import logging
import traceback
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError, to_tuple

from migrator.alembic import url as database_url
from migrator.alembic.applied import not_held, unknown
from migrator.alembic.telling import words
from migrator.alembic.underway import target_of
from migrator.change import DEFAULT_VERSION_TABLE, Change
from migrator.errors import Failed, MigratorError, Refused, UsageError
from migrator.history import History, Node, required, takes_name
from migrator.pattern import Pattern
from migrator.postgres.connection import Target


def patterns_of(module: ModuleType) -> list[Pattern]:
    """Return the patterns that a revision binds at its top level, in order."""
    found: list[Pattern] = []
    for value in vars(module).values():
        # By its type: an object may stand for another one, and go to look for it.
        several = issubclass(type(value), list | tuple)
        for one in value if several else [value]:
            if issubclass(type(one), Pattern) and one not in found:
                found.append(one)
    return found


def is_of_several(module: ModuleType) -> bool:
    """Tell whether a revision is told in which of several databases it runs."""
    return takes_name(getattr(module, "upgrade", None))


def requires_of(script: Script) -> tuple[str, ...]:
    """
    Return the names of changes that a revision requires.

    Raises:
        UsageError: `requires` holds something else.
    """
    return required(getattr(script.module, "requires", None), script.revision)


def label(script: Script) -> str:
    """Return a revision for a person: its id, and what it does."""
    about = "; ".join(p.title for p in patterns_of(script.module)) or script.doc
    return f"{script.revision} ({about})" if about else script.revision


def changes_of(script: Script, version_table: str) -> tuple[Change, ...]:
    """Return the changes that a revision holds, in their order."""
    requires = requires_of(script)
    return tuple(
        Change(
            revision=script.revision,
            pattern=pattern,
            ordinal=number,
            version_table=version_table,
            requires=requires,
        )
        for number, pattern in enumerate(patterns_of(script.module), 1)
    )


def history_of(script: ScriptDirectory) -> History:
    """Return the revisions of a folder, with what they require of one another."""
    every = list(reversed(list(script.walk_revisions())))
    return History(
        [
            Node(
                revision=r.revision,
                after=r._all_down_revisions,
                changes=changes_of(r, DEFAULT_VERSION_TABLE),
                requires=requires_of(r),
            )
            for r in every
        ]
    )


@dataclass(frozen=True, slots=True)
class Project:
    """An Alembic environment, as `alembic` itself would load it."""

    config: Config

    @staticmethod
    def is_at(file: str) -> bool:
        """Tell whether there is a project: its `alembic.ini` or pyproject.toml."""
        ini, toml = _files(file)
        return Path(ini).is_file() or bool(Config(toml_file=toml).toml_alembic_config)

    @classmethod
    def load(
        cls,
        file: str,
        *,
        name: str = "alembic",
        url: str | None = None,
        x: tuple[str, ...] = (),
    ) -> "Project":
        """
        Load a project from its `alembic.ini`, or pyproject.toml.

        Args:
            file: the path of either.
            name: the section of `alembic.ini`, as Alembic's `-n`.
            url: put in place of `sqlalchemy.url`.
            x: values of `-x`.

        Raises:
            UsageError: there is no such file, or no such section, or they cannot be
                read.
        """
        if not cls.is_at(file):
            raise UsageError(
                f"There is no {file} here.",
                next="go to the project's folder, or give --config.",
            )
        ini, toml = _files(file)
        config = Config(
            ini, toml_file=toml, ini_section=name, cmd_opts=Namespace(x=list(x))
        )
        try:
            sections = config.file_config.sections()
        except configparser.Error as error:
            # Its words may repeat a line, and with it a password.
            raise UsageError(
                f"{ini} cannot be read: {type(error).__name__}.", next="correct it."
            ) from error
        if name not in sections and (sections or not config.toml_alembic_config):
            raise UsageError(
                f"There is no section [{name}] in {ini}.",
                next="correct --name, or the file.",
            )
        if url is not None:
            own = config.file_config.get(
                name, "sqlalchemy.url", raw=True, fallback=None
            )
            url = database_url.for_sqlalchemy(url, own)
            config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        return cls(config)

    def script(self) -> ScriptDirectory:
        """
        Return the folder of revisions.

        Raises:
            UsageError: there is none, or the configuration does not say where.
        """
        try:
            return ScriptDirectory.from_config(self.config)
        except CommandError as error:
            raise UsageError(
                f"Alembic: {error}", next="correct script_location, or give --config."
            ) from error

    def database(self) -> tuple[Target, str, tuple[str, ...]]:
        """
        Return the database, the version table and its heads, by running env.py.

        Raises:
            UsageError: env.py fails, or configures no connection, or more than one.
            Refused: the server cannot be reached.
        """
        seen: list[tuple[Target, str, tuple[str, ...]]] = []
        others: list[str] = []

        def look(heads: Any, ctx: MigrationContext) -> list[Any]:
            assert ctx.connection is not None
            if ctx.dialect.name != "postgresql":
                # One of several, which the toolkit leaves to Alembic.
                others.append(ctx.dialect.name)
                return []
            schema = ctx.version_table_schema
            table = f"{schema}.{ctx.version_table}" if schema else ctx.version_table
            seen.append((target_of(ctx.connection), table, tuple(heads)))
            return []

        script = self.script()
        # A look is not a migration: what env.py logs of one would mislead.
        logging.disable(logging.INFO)
        try:
            with EnvironmentContext(self.config, script, fn=look, dont_mutate=True):
                script.run_env()
        except CommandError as error:
            raise UsageError(
                f"env.py fails: {error}", next="`alembic current` says more."
            ) from error
        except MigratorError:
            raise
        except Exception as error:
            # Whatever the project's own code raises; its text may hold the URL.
            found = database_url.wrong(error, self.config)
            raise (found or _wrong_in_env(error)) from error
        finally:
            logging.disable(logging.NOTSET)
        if not seen and others:
            raise UsageError(
                f"env.py connects to {' and '.join(others)}; migrator changes"
                " PostgreSQL.",
                next=f"give a URL as {database_url.EXAMPLE}.",
            )
        if not seen:
            raise UsageError(
                "env.py ran no migrations, so that its database is not known.",
                next="give --database-url.",
            )
        names = sorted({str(target) for target, _, _ in seen})
        if len(names) > 1:
            raise UsageError(
                f"env.py goes to several databases, {' and '.join(names)}; a command of"
                " migrator is about one.",
                next="give each an Alembic environment of its own, and say which by"
                " --name or --config (docs/deployment.md, Several databases);"
                " `migrator lint --offline` needs none.",
            )
        return seen[0]

    def revisions(
        self,
        what: tuple[str, ...] = (),
        *,
        after: str | Sequence[str] | None = None,
        applied: tuple[str, ...] = (),
    ) -> list[Script]:
        """
        Return revisions, oldest first.

        Args:
            what: files, revisions (the beginning is enough) or ranges as Alembic has
                them; all where there are none.
            after: of all, leave out this one, or these, and those before it.
            applied: of all, leave out these and those before them.

        Raises:
            UsageError: something names no revision, or one cannot be loaded.
            Refused: what is applied is none of the project's.
        """
        script = self.script()
        with _readable():
            if missing := unknown(script, applied):
                raise not_held(script, missing)
            every = list(reversed(list(script.walk_revisions())))
            if not what:
                known = {
                    r.revision
                    for head in (*applied, *to_tuple(after, default=()))
                    for r in script.iterate_revisions(head, "base")
                }
                return [r for r in every if r.revision not in known]
            found: set[str] = set()
            for one in what:
                if Path(one).suffix == ".py":
                    path = Path(one).resolve()
                    named = [r for r in every if Path(r.path).resolve() == path]
                    if not named:
                        raise UsageError(
                            f"{one} is no revision of this project.",
                            next="give a file of its versions folder.",
                        )
                elif ":" in one:
                    base, _, head = one.partition(":")
                    named = list(
                        script.iterate_revisions(
                            head or "heads", base or "base", inclusive=True
                        )
                    )
                else:
                    named = list(script.get_revisions(one))
                found |= {r.revision for r in named if r is not None}
            return [r for r in every if r.revision in found]

    def heads(self) -> tuple[str, ...]:
        """Return the revisions that no other one follows or depends on."""
        return tuple(sorted(r.revision for r in self.revisions() if r._is_real_head))

    def lacks(self, revisions: tuple[str, ...]) -> bool:
        """Tell whether one of some revisions is none of the project's."""
        return not {r.revision for r in self.revisions()}.issuperset(revisions)

    def is_guarded(self) -> bool:
        """Tell whether env.py passes the toolkit's options, by its text."""
        folder = Path(self.script().dir)
        env = folder / "env.py"
        if not env.is_file():
            return False
        nodes = list(ast.walk(ast.parse(env.read_text())))
        imports = any(
            (isinstance(n, ast.ImportFrom) and (n.module or "").startswith("migrator"))
            or (
                isinstance(n, ast.Import)
                and any(a.name.startswith("migrator") for a in n.names)
            )
            for n in nodes
        )
        calls = (n.func for n in nodes if isinstance(n, ast.Call))
        names = {
            n.attr if isinstance(n, ast.Attribute) else n.id
            for n in calls
            if isinstance(n, ast.Attribute | ast.Name)
        }
        return imports and "options" in names

    def failure(self, error: Exception) -> Failed:
        """
        Return an error that says which line of a revision, or of env.py, failed.

        Of its words stands what holds no value of a row, and no URL.
        """
        frames = traceback.extract_tb(error.__traceback__)
        files = {Path(r.path).resolve() for r in self.revisions()}
        mine = [f for f in frames if Path(f.filename).resolve() in files]
        mine = mine or [f for f in frames if Path(f.filename).name == "env.py"]
        where = f"{mine[-1].filename}, line {mine[-1].lineno}: " if mine else ""
        return Failed(
            f"{where}{words(error)}.",
            state="What was committed before it stays; `alembic current` tells how far"
            " it came.",
            next="correct it, and run this again; `alembic upgrade` says more.",
        )

    def changes(self, version_table: str = DEFAULT_VERSION_TABLE) -> list[Change]:
        """Return the changes of all revisions, oldest first."""
        return list(self._changes(version_table))

    def _changes(self, version_table: str) -> Iterator[Change]:
        for revision in self.revisions():
            yield from changes_of(revision, version_table)

    def history(self) -> History:
        """
        Return the revisions with what they require of one another.

        Raises:
            UsageError: one cannot be loaded, or requires what is no name.
        """
        with _readable():
            return history_of(self.script())


def _files(file: str) -> tuple[str, str]:
    """Return the paths of `alembic.ini` and pyproject.toml, of which one is given."""
    if Path(file).name == "pyproject.toml":
        return "alembic.ini", file
    return file, "pyproject.toml"


@contextmanager
def _readable() -> Iterator[None]:
    """Say which revision Alembic cannot read, and why."""
    try:
        yield
    except (UsageError, Refused):
        raise
    except CommandError as error:
        raise UsageError(
            f"Alembic cannot read its revisions: {error}",
            next="`alembic history` says more.",
        ) from error
    except Exception as error:
        # Whatever the code of a revision raises when it is loaded.
        raise _wrong_in_file(error) from error


def _wrong_in_env(error: Exception) -> UsageError:
    """Return an error that says where in env.py, or what it calls, another one was."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if Path(f.filename).name == "env.py"]
    where = f"{mine[-1].filename}, line {mine[-1].lineno}" if mine else "env.py"
    if isinstance(error, ModuleNotFoundError):
        # The name of a module is no secret.
        return UsageError(
            f"{where}: {error.msg}.",
            next="install it; for one of the project's own, prepend_sys_path in"
            " alembic.ini says where it is.",
        )
    if isinstance(error, SyntaxError):
        read = f" (read by {where})" if mine else ""
        return UsageError(f"{words(error)}{read}.", next="correct it.")
    return UsageError(f"{where}: {words(error)}.", next="`alembic current` says more.")


def _wrong_in_file(error: Exception) -> MigratorError:
    """Return an error that says in which revision's file another one was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = next((f for f in frames if f.name == "<module>"), None)
    file, line = (mine.filename, mine.lineno) if mine else ("a revision", None)
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        file, line, text = error.filename or file, error.lineno, error.msg
    where = f"{file}, line {line}" if line else file
    if isinstance(error, MigratorError):
        return type(error)(f"{where}: {error.what}", state=error.state, next=error.next)
    if isinstance(error, TypeError):
        # Of a call of a pattern, whose method says nothing to who wrote it.
        text = str(error).replace(".__init__()", "()")
    return UsageError(
        f"{where}: {text}.",
        next="correct the revision; `migrator patterns NAME` shows what a pattern"
        " takes.",
    )
