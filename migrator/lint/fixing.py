"""A revision's file with the safe form in the place of a hazard.

The source is edited at the positions that Python's parser gives, so that nothing but
the hazard, its way back and what they need changes. What is not mechanical is left.
"""

import ast
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from types import ModuleType

from migrator.lint.linter import Linter, Placed
from migrator.lint.overlaps import UNDECLARED
from migrator.lint.recording import Record, Recorded
from migrator.lint.replacing import is_whole
from migrator.lint.source import call, imports, indented
from migrator.pattern import Pattern
from migrator.words import counted

ZD = "from migrator import alembic as zd"
#: The name that a change gets in a revision.
NAME = "change"

# A line of a safe form that stands for the statement.
_ITSELF = re.compile(r"^( +)\.\.\.(?: .*)?$", re.MULTILINE)

# A text that is a name, or a name of something in it.
_NAME = re.compile(r"(?P<name>[^\W\d]\w*)(\.\w+)*")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class LeftError(Exception):
    """A file was left as it is; the text says why."""


@dataclass(slots=True)
class _Source:
    """A file, and the edits that are to be made in it."""

    text: str
    tree: ast.Module = field(init=False)
    #: Places in the text, and what comes there.
    edits: list[tuple[int, int, str]] = field(
        default_factory=list[tuple[int, int, str]]
    )
    _lines: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.text)
        self._lines = [0]
        for line in self.text.split("\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)

    def place(self, line: int, column: int) -> int:
        """Return where a position is; the parser counts a line's bytes."""
        start = self._lines[line - 1]
        rest = self.text[start : self._lines[line]]
        return start + len(rest.encode()[:column].decode())

    def span(self, node: ast.stmt) -> tuple[int, int]:
        """Return where a statement begins and ends."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self.place(node.lineno, node.col_offset),
            self.place(node.end_lineno, node.end_col_offset),
        )

    def edit(self, start: int, end: int, new: str) -> None:
        """Note an edit for which several findings may ask."""
        if (start, end, new) not in self.edits:
            self.edits.append((start, end, new))

    def edited(self) -> str:
        """Return the text with all edits made."""
        text = self.text
        # Of what goes to one place, what was asked for first comes first.
        for start, end, new in sorted(self.edits, key=lambda edit: edit[0])[::-1]:
            text = text[:start] + new + text[end:]
        return text

    def function(self, name: str) -> Function:
        """
        Return a function of the top level.

        Raises:
            LeftError: there is none.
        """
        for node in self.tree.body:
            if isinstance(node, Function) and node.name == name:
                return node
        raise LeftError(f"it has no {name}() of its own")

    def names(self) -> set[str]:
        """Return all names that are bound at the top level."""
        found: set[str] = set()
        for node in self.tree.body:
            match node:
                case ast.Import() | ast.ImportFrom():
                    found |= {_bound(a) for a in node.names}
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    found.add(node.name)
                case _:
                    found |= {
                        n.id
                        for n in ast.walk(node)
                        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                    }
        return found

    def has_comment(self, node: ast.stmt) -> bool:
        """Tell whether a comment stands within a statement."""
        start, end = self.span(node)
        return any(
            token.type == tokenize.COMMENT
            and start <= self._lines[token.start[0] - 1] + token.start[1] < end
            for token in tokenize.generate_tokens(StringIO(self.text).readline)
        )

    def lines(self, node: ast.stmt) -> tuple[int, int]:
        """Return where the lines of a statement begin and end."""
        assert node.end_lineno is not None
        return self._lines[node.lineno - 1], self._lines[node.end_lineno]

    def has_lines(self, node: ast.stmt) -> bool:
        """Tell whether a statement has its lines for itself, without a comment."""
        (first, last), (start, end) = self.lines(node), self.span(node)
        beside = self.text[first:start] + self.text[end:last]
        return not beside.strip() and not self.has_comment(node)

    def imports(self, lines: Sequence[str]) -> None:
        """
        Import what is not imported yet, behind the imports at the top.

        Raises:
            LeftError: one of the names means something else here.
        """
        wanted: list[str] = []
        for line in lines:
            (node,) = ast.parse(line).body
            assert isinstance(node, ast.ImportFrom)
            module = node.module
            missing = [
                alias
                for alias in node.names
                if not any(_imports(each, module, alias) for each in self.tree.body)
            ]
            for name in (alias.asname or alias.name for alias in missing):
                if name in self.names():
                    raise LeftError(f"{name} means something else in it")
            if missing:
                wanted.append(ast.unparse(ast.ImportFrom(module, missing, 0)))
        if not wanted:
            return
        top = [n for n in self.tree.body if n.lineno < self.function("upgrade").lineno]
        before = [n for n in top if isinstance(n, ast.Import | ast.ImportFrom)]
        if not before:
            raise LeftError("it imports nothing at its top")
        _, at = self.span(before[-1])
        self.edits.append((at, at, "".join(f"\n{line}" for line in wanted)))


def _imports(node: ast.stmt, module: str | None, alias: ast.alias) -> bool:
    return (
        isinstance(node, ast.ImportFrom)
        and node.module == module
        and any((a.name, a.asname) == (alias.name, alias.asname) for a in node.names)
    )


@dataclass(frozen=True, slots=True)
class Fixed:
    """What became of a file: what is wrong with it now, and why it was left, or ""."""

    found: list[Placed]
    left: str = ""


def fix(linter: Linter, revision: str, file: Path, found: list[Placed]) -> Fixed:
    """
    Rewrite a revision's file, where that is mechanical.

    What was written is looked at again, and taken back where it is no better.

    Args:
        linter: what found something.
        revision: its id.
        file: its file.
        found: what is wrong with it.
    """
    with file.open(newline="") as opened:
        text = opened.read()
    try:
        new = fixed(text, linter.record(revision, _loaded(file)), found)
    except LeftError as reason:
        return Fixed(found, str(reason))
    _write(file, new)
    try:
        now = linter.lint(revision, _loaded(file))
    except Exception:
        _write(file, text)
        raise
    if sum(not p.allowed for p in now) >= sum(not p.allowed for p in found):
        _write(file, text)
        return Fixed(found, "what would be written in its place is found as well")
    return Fixed(now)


def _write(file: Path, text: str) -> None:
    with file.open("w", newline="") as opened:
        opened.write(text)


def _loaded(file: Path) -> ModuleType:
    """Return the module of a file as it is now."""
    module = ModuleType(file.stem)
    module.__file__ = str(file)
    code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
    exec(code, vars(module))
    return module


def fixed(text: str, record: Record, found: Sequence[Placed]) -> str:
    """
    Return a revision's file with the safe forms that need no decision.

    Args:
        text: the file.
        record: what its `upgrade()` does.
        found: what is wrong with it.

    Raises:
        LeftError: nothing of it is mechanical.
    """
    if record.unread:
        raise LeftError("it could not be followed to its end")
    open_ = [place for place in found if not place.allowed]
    source = _Source(text)
    if len(record.done) == 1 and (pattern := _pattern(open_)) is not None:
        (one,) = record.done
        if not is_whole(one.statement, one.operation, pattern):
            raise LeftError("the safe form does not do all of it, or leaves a gap")
        _carry(source, pattern)
        return _tidied(source)
    done = [
        p for p in open_ if _replaced(source, record, p, open_) or _required(source, p)
    ]
    if not done:
        raise LeftError(_why(open_, record))
    return _tidied(source)


def _tidied(source: _Source) -> str:
    """Return the text with all edits made, without imports that they left no use of."""
    after = _Source(source.edited())
    gone = _used(source.tree) - _used(after.tree)
    for node in after.tree.body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        kept = [a for a in node.names if _bound(a) not in gone]
        if len(kept) == len(node.names) or not after.has_lines(node):
            continue
        if kept:
            names = (
                ast.Import(kept)
                if isinstance(node, ast.Import)
                else ast.ImportFrom(node.module, kept, node.level)
            )
            after.edits.append((*after.span(node), ast.unparse(names)))
        else:
            after.edits.append((*after.lines(node), ""))
    return after.edited()


def _bound(alias: ast.alias) -> str:
    """Return the name that an import binds."""
    return (alias.asname or alias.name).split(".")[0]


def _used(tree: ast.Module) -> set[str]:
    """Return the names that are read, also in annotations and exports that are text."""
    found = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = _NAME.fullmatch(node.value)
            found |= {name["name"]} if name else set()
    return found


def _pattern(found: Sequence[Placed]) -> Pattern | None:
    """Return the one change that is the safe form of a statement, if there is one."""
    patterns: list[Pattern] = []
    for place in found:
        safe = place.finding.safe
        if safe is not None and safe.patterns:
            if safe.decide or safe.then or safe.code:
                return None
            patterns += [p for p in safe.patterns if p not in patterns]
    return patterns[0] if len(patterns) == 1 else None


def _why(found: Sequence[Placed], record: Record) -> str:
    """Return why nothing of what was found is mechanical."""
    if len(record.done) > 1 and any(
        p.finding.safe is not None and p.finding.safe.patterns for p in found
    ):
        return "it does several things, and each belongs in a revision of its own"
    for place in found:
        safe = place.finding.safe
        if safe is None or not (safe.patterns or safe.code):
            return f"{place.finding.code} has no safe form that could be written"
        if safe.decide:
            return f"a person decides {safe.decide.rstrip('.')}"
        if safe.then or (safe.patterns and safe.code):
            return "the safe form takes several revisions"
        if safe.code and not safe.replaces:
            return "the safe form is more than another statement in its place"
        if safe.patterns:
            return "there are several safe forms, of which one has to be chosen"
    return "the statement stands where it cannot be replaced"


# -- a change in place of the whole revision


def _carry(source: _Source, pattern: Pattern) -> None:
    """Let a revision carry a change, in place of what it does."""
    if NAME in source.names():
        raise LeftError(f"{NAME} means something else in it")
    upgrade, downgrade = source.function("upgrade"), source.function("downgrade")
    for function, method in ((upgrade, "upgrade"), (downgrade, "downgrade")):
        node = _only(source, function)
        source.edits.append((*source.span(node), f"zd.{method}({NAME})"))
    source.imports([ZD, *imports(pattern)])
    first = min((upgrade, downgrade), key=lambda node: node.lineno)
    number = source.tree.body.index(first)
    if not number:
        raise LeftError("nothing stands before its functions")
    _, at = source.span(source.tree.body[number - 1])
    source.edits.append((at, at, f"\n\n{call(pattern, NAME)}"))


def _only(source: _Source, function: Function) -> ast.stmt:
    """Return the one statement of a function."""
    if function.args.args:
        raise LeftError(f"{function.name}() is told in which database it runs")
    body = [n for n in function.body if not _is_docstring(n)]
    if len(body) != 1:
        raise LeftError(f"{function.name}() holds {counted(len(body), 'statement')}")
    node = body[0]
    if not isinstance(node, ast.Expr | ast.With | ast.Pass | ast.Raise):
        raise LeftError(f"{function.name}() decides what it does")
    if isinstance(function, ast.AsyncFunctionDef) or node.lineno == function.lineno:
        raise LeftError(f"{function.name}() has a form of its own")
    if source.has_comment(node):
        raise LeftError(f"{function.name}() has a comment within its statement")
    return node


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


# -- code in place of one statement


def _replaced(
    source: _Source, record: Record, place: Placed, found: Sequence[Placed]
) -> bool:
    """Write the safe form in place of one statement, where that is mechanical."""
    safe = place.finding.safe
    if (
        safe is None
        or not safe.replaces
        or safe.patterns
        or safe.then
        or safe.decide
        or place.recorded is None
    ):
        return False
    node = _statement(source, record, place.recorded)
    if node is None or sum(p.recorded is place.recorded for p in found) > 1:
        return False
    code = ast.parse(safe.code)
    used = {n.id for n in ast.walk(code) if isinstance(n, ast.Name)}
    known = source.names()
    if used & {"zd"} and "zd" not in known:
        source.imports([ZD])
        known |= {"zd"}
    if used - known:
        return False
    start, end = source.span(node)
    lines = indented(safe.code, node.col_offset).strip()
    # Within its own parentheses a statement may be indented in any way.
    new = _ITSELF.sub(lambda found: found[1] + source.text[start:end], lines)
    source.edits.append((start, end, new))
    return True


def _required(source: _Source, place: Placed) -> bool:
    """Write what the revision has to require beside what it follows."""
    safe = place.finding.safe
    if place.finding.code != UNDECLARED or safe is None or safe.decide or not safe.code:
        return False
    said = {
        name.id: node
        for node in source.tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for name in ast.walk(node)
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    }
    if (old := said.get("requires")) is not None:
        source.edit(*source.span(old), safe.code)
        return True
    above = said.get("depends_on", said.get("down_revision"))
    if above is None:
        return False
    _, at = source.span(above)
    source.edit(at, at, f"\n{safe.code}")
    return True


def _statement(source: _Source, record: Record, one: Recorded) -> ast.stmt | None:
    """Return the code that made a statement, where it made just this one."""
    upgrade = source.function("upgrade")
    for node in upgrade.body:
        assert node.end_lineno is not None
        if (
            isinstance(node, ast.Expr)
            and node.lineno <= one.line <= node.end_lineno
            and not source.has_comment(node)
        ):
            same = [d for d in record.done if node.lineno <= d.line <= node.end_lineno]
            return node if len(same) == 1 else None
    return None
