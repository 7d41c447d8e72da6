"""What a revision would do, without a server: its `upgrade()` run on paper.

The revision's own code runs, so that loops, helpers and conditions count as they are;
nothing reaches a database. A revision that reads one finds no rows: what it would do
with some is not looked at, and the record says where. Behind a statement that fails of
that, the next ones are still run.
"""

import ast
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from alembic.operations import ops
from alembic.operations.base import AbstractOperations
from alembic.operations.ops import MigrateOperation
from alembic.runtime.migration import MigrationContext
from sqlalchemy.exc import NoInspectionAvailable

from migrator.history import takes_name
from migrator.lint import sql
from migrator.lint.intercepting import (
    Invoke,
    flushing,
    intercepted,
    line_in,
    working_in,
)
from migrator.lint.no_rows import NoRows
from migrator.lint.operations import statements, text_of
from migrator.lint.paper import UNSEEN, give_inspector
from migrator.lint.run import Run
from migrator.lint.silence import assurance
from migrator.lint.statements import Carried, Statement, Transaction, is_alone
from migrator.pattern import Pattern, Undecided

# What an autocommit block is opened by.
_BLOCK = "autocommit_block"

# A revision that still asks for rows then waits for some, and would for ever.
MOST_READS = 100


@dataclass(frozen=True, slots=True)
class Recorded:
    """
    A statement, and where it is written.

    Args:
        statement: what the server is made to do.
        line: of the revision's file, from 1; 0 where it is not known.
        autocommit: whether it is a transaction of its own.
        operation: as Alembic has it; None for others.
        transaction: the number of the transaction that it is in.
        assured: why a person said that it is no hazard; "" where nobody did.
    """

    statement: Statement
    line: int = 0
    autocommit: bool = False
    operation: MigrateOperation | None = None
    transaction: int = 0
    assured: str = ""


@dataclass(slots=True)
class Record:
    """What a revision does, as far as it could be followed."""

    done: list[Recorded] = field(default_factory=list[Recorded])
    #: Why it could not be followed to its end; "" where it could.
    unread: str = ""
    unread_line: int = 0


#: The record that is being written; what a revision calls looks here.
_current: "Recorder | None" = None


def note_change(pattern: Pattern) -> bool:
    """
    Note a change that a revision carries, where one is being followed.

    Returns:
        False where the revision runs on a server.
    """
    if _current is None:
        return False
    _current.note(Carried(title=pattern.title, pattern=pattern))
    return True


def line_of(module: ModuleType, pattern: Pattern) -> int:
    """
    Return the line of a revision's file that makes a change, from 1; 0 where none does.

    Args:
        module: the revision.
        pattern: the change, as it is bound at the top level.
    """
    if isinstance(pattern, Undecided):
        return pattern.line
    file = module.__file__
    if file is None:
        return 0
    for node in ast.parse(Path(file).read_bytes()).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for name in (t.id for t in targets if isinstance(t, ast.Name)):
            bound = getattr(module, name, None)
            several = list(bound) if isinstance(bound, list | tuple) else [bound]
            if pattern not in several:
                continue
            written = node.value
            if isinstance(written, ast.List | ast.Tuple) and (
                len(written.elts) == len(several)
            ):
                return written.elts[several.index(pattern)].lineno
            return node.lineno
    return 0


def record(module: ModuleType, tables: Run | None = None) -> Record:
    """
    Run a revision's `upgrade()` on paper.

    Args:
        module: the revision.
        tables: answers what it asks of tables, and is told what it does to them; None
            where nothing is known.
    """
    with _quiet():
        recorder = Recorder(module, tables)
        recorder.run()
    return recorder.record


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what is logged and printed of a run: there is none but on paper."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        # A revision tells how far it is; a report in JSON has to stay one.
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def record_text(text: str) -> Record:
    """
    Return what a file of SQL does.

    It is one transaction, but for statements that refuse one, as far as it does not
    say BEGIN and COMMIT itself.

    Args:
        text: the file.
    """
    record = Record()
    transaction, opened = 0, False
    line, at = 1, 0
    for one in sql.parse(text).read:
        line, at = line + text.count("\n", at, one.start), one.start
        alone = not opened and any(map(is_alone, one.statements))
        transaction += alone
        for statement in one.statements:
            record.done.append(
                Recorded(statement, line, alone, transaction=transaction)
            )
            if isinstance(statement, Transaction):
                opened = statement.how == "BEGIN"
                transaction += 1
        transaction += alone
    return record


def _said(error: Exception) -> str:
    """Return what a revision's code wanted that failed on paper."""
    if isinstance(error, NoInspectionAvailable) or "MockConnection" in str(error):
        return UNSEEN
    return f"its code failed without a database, by {type(error).__name__}: {error}"


def _body(file: Path, function: str) -> list[ast.stmt]:
    """Return the statements of a function at the top level of a file."""
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return node.body
    return []


def _on_paper() -> MigrationContext:
    """Return a context without a server, of which Alembic's log says nothing."""
    log = logging.getLogger("alembic.runtime.migration")
    before, log.disabled = log.disabled, True
    try:
        return MigrationContext.configure(
            dialect_name="postgresql",
            opts={"as_sql": True, "output_buffer": io.StringIO()},
        )
    finally:
        log.disabled = before


class Recorder:
    """Runs one revision."""

    def __init__(self, module: ModuleType, tables: Run | None = None) -> None:
        self.record = Record()
        self._tables = tables
        self._module = module
        self._file = getattr(module, "__file__", None)
        self._block = False
        self._reads = 0
        #: Lines of the autocommit blocks that were gone through.
        self._entered: set[int] = set()
        self._transaction = 0
        self._inside = False
        self._context = _on_paper()

    def note(
        self, *statements: Statement, operation: MigrateOperation | None = None
    ) -> None:
        """Enter statements, with the line of the revision that makes them."""
        for statement in statements:
            self._enter(statement, operation, alone=True)

    def note_text(self, text: str, operation: MigrateOperation | None = None) -> None:
        """
        Enter what is sent as one text.

        Also in an autocommit block, statements that are sent together are one
        transaction (PostgreSQL manual, section 55.2.2.1).
        """
        read = sql.parse(text).read
        if self._block:
            self._transaction += 1
        for one in read:
            for statement in one.statements:
                self._enter(statement, operation, alone=len(read) == 1)

    def _enter(
        self, statement: Statement, operation: MigrateOperation | None, *, alone: bool
    ) -> None:
        if self._block and alone:
            self._transaction += 1
        if self._tables is not None:
            self._tables.follow(statement)
        self.record.done.append(
            Recorded(
                statement,
                line_in(self._file),
                self._block and alone,
                operation,
                self._transaction,
                assurance(),
            )
        )

    def run(self) -> None:
        """Run `upgrade()`, as far as it goes without a server."""
        global _current
        impl: Any = self._context.impl
        execute = impl._exec

        def noted(construct: Any, *args: Any, **kwargs: Any) -> Any:
            # What goes past Alembic's operations: op.get_bind().execute(…).
            if self._inside:
                return execute(construct)
            self.note_text(text_of(construct))
            return NoRows(self._reading, self._counting)

        impl._exec = noted
        connection: Any = self._context.connection
        if self._tables is not None:
            give_inspector(connection, self._tables, self._asking)
        connection._execute_impl = connection.exec_driver_sql = noted
        # A revision that asks is to do what it does on a server, not for --sql.
        context: Any = self._context
        context.as_sql, context.begin_transaction = False, nullcontext
        context.autocommit_block = self._autocommit
        upgrade = getattr(self._module, "upgrade", None)
        _current = self
        try:
            with (
                intercepted(self._noting),
                flushing(self._in, self._out),
                working_in(self._context),
            ):
                try:
                    if upgrade is not None and takes_name(upgrade):
                        self._each(upgrade)
                    elif upgrade is not None:
                        upgrade()
                # Whatever the revision's code raises without a database below it.
                except Exception as error:
                    if not self.record.unread:
                        self.record.unread = _said(error)
                        self.record.unread_line = self._line_of(error)
                    self._rest(error)
        finally:
            _current = None
        if self.record.unread and self._file:
            self._commit_unseen(Path(self._file))

    def _commit_unseen(self, file: Path) -> None:
        """
        End the transaction at each autocommit block that nothing on paper led into.

        What it holds was not looked at; with rows to go over, it would have committed
        what stands before it.
        """
        blocks = [
            (node.end_lineno or 0, function.end_lineno or 0)
            for function in ast.walk(ast.parse(file.read_bytes()))
            if isinstance(function, ast.FunctionDef)
            for node in ast.walk(function)
            if isinstance(node, ast.With)
            and node.lineno not in self._entered
            and node.lineno > self.record.unread_line
            and any(_BLOCK in ast.dump(item.context_expr) for item in node.items)
        ]
        many = len(blocks) + 1
        self.record.done = [
            replace(
                one,
                transaction=one.transaction * many
                + sum(end < one.line <= last for end, last in blocks),
            )
            for one in self.record.done
        ]

    def _rest(self, error: Exception) -> None:
        """
        Run what stands behind the statement of the revision's function that failed.

        What needs more than a database without rows fails as well, and is left.
        """
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != self._file:
            trace = trace.tb_next
        if trace is None:
            return
        frame, failed = trace.tb_frame, trace.tb_lineno
        names = {**frame.f_globals, **frame.f_locals}
        for statement in _body(Path(frame.f_code.co_filename), frame.f_code.co_name):
            if isinstance(statement, ast.Return):
                return
            if statement.lineno > failed:
                alone = ast.Module([statement], type_ignores=[])
                with suppress(Exception):
                    exec(compile(alone, self._file or "", "exec"), names)

    def _each(self, upgrade: Callable[[str], Any]) -> None:
        """Run the revision for each of its databases, as Alembic's template has it."""
        for function in list(vars(self._module)):
            if function.startswith("upgrade_"):
                upgrade(function.removeprefix("upgrade_"))
                self._transaction += 1

    def _counting(self) -> None:
        """Note that the number of rows is asked for, but where it ends a loop."""
        self._read_again()
        if not self._ends_loop(line_in(self._file)):
            self._reading()

    def _ends_loop(self, line: int) -> bool:
        """Tell whether a line does no more than to leave a loop: nothing is unseen."""
        tree = (
            ast.parse(Path(self._file).read_bytes())
            if self._file
            else ast.Module([], [])
        )
        return any(
            isinstance(node, ast.If)
            and node.lineno <= line <= (node.test.end_lineno or 0)
            and not node.orelse
            and all(isinstance(one, ast.Break) for one in node.body)
            for node in ast.walk(tree)
        )

    def _read_again(self) -> None:
        self._reads += 1
        if self._reads > MOST_READS:
            raise RuntimeError("it asks for rows again and again")

    def _reading(self) -> None:
        """Note that the revision asks for rows, and let it go on without any."""
        self._read_again()
        if not self.record.unread:
            self.record.unread = "it asks the database for rows"
            self.record.unread_line = line_in(self._file)

    def _asking(self) -> None:
        """Note that the revision asks for what only a server knows."""
        if not self.record.unread:
            self.record.unread = UNSEEN
            self.record.unread_line = line_in(self._file)

    def _line_of(self, error: Exception) -> int:
        trace, line = error.__traceback__, 0
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == self._file:
                line = trace.tb_lineno
            trace = trace.tb_next
        return line

    @contextmanager
    def _autocommit(self) -> Iterator[None]:
        before, self._block = self._block, True
        self._entered.add(line_in(self._file))
        try:
            yield
        finally:
            self._block = before
            self._transaction += 1

    def _in(self) -> None:
        self._inside = True

    def _out(self) -> None:
        self._inside = False

    def _noting(self, original: Invoke) -> Invoke:
        def invoke(operations: AbstractOperations, operation: MigrateOperation) -> Any:
            if isinstance(operation, ops.ExecuteSQLOp):
                self.note_text(text_of(operation.sqltext), operation)
                return None
            self.note(*statements(operation), operation=operation)
            if isinstance(operation, ops.BulkInsertOp):
                # On paper its values would need types, which many leave out.
                return None
            before, self._inside = self._inside, True
            try:
                return original(operations, operation)
            finally:
                self._inside = before

        return invoke
