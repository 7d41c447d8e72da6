"""What may be told of an error that is not ours: its words may hold what is secret."""

from typing import Any

from migrator.postgres.masking import masked

# Errors whose words Python makes of names in the code alone.
_OF_NAMES = (ImportError, NameError, AttributeError)


def words(error: BaseException) -> str:
    """
    Return the kind of an error, and of its words what holds no secret.

    Of a server's error these are its SQLSTATE, of its message what is no value, and
    the names of the table and of the constraint; of most others there are none.

    Args:
        error: whatever a revision, env.py or a driver raised.
    """
    driver = getattr(error, "orig", None) or error
    kind = type(driver).__name__
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}: " if error.filename else ""
        return f"{where}{kind}: {error.msg}"
    if isinstance(error, _OF_NAMES):
        return f"{kind}: {str(error).partition(chr(10))[0].rstrip('.')}"
    code = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
    if not code:
        return kind
    message, names = _of_server(driver)
    message = masked(str(code), message)
    told = [
        f"{what} {name}" for what, name in names.items() if f'"{name}"' not in message
    ]
    return (
        f"{kind} ({code})"
        + (f": {message}" if message else "")
        + (f" ({', '.join(told)})" if told else "")
    )


def _of_server(driver: Any) -> tuple[str, dict[str, str]]:
    """Return the server's message, and the names of what it is about."""
    diag = getattr(driver, "diag", None)
    if diag is not None:
        message = diag.message_primary
        table, constraint = diag.table_name, diag.constraint_name
    else:
        # SQLAlchemy puts an error of its own over asyncpg's.
        cause = driver.__cause__ or driver
        message = next(iter(cause.args), "")
        table = getattr(cause, "table_name", None)
        constraint = getattr(cause, "constraint_name", None)
    names = {"table": table, "constraint": constraint}
    found = {what: str(name) for what, name in names.items() if name}
    return str(message or ""), found
