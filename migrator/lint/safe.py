"""Safe forms that are no pattern: a statement in another place of the revision."""

#: A statement that has to be a transaction of its own.
ALONE = """\
with op.get_context().autocommit_block():
    ...  # the statement as it stands, alone
"""


def alone(text: str) -> str:
    """Return an autocommit block that runs SQL."""
    # SQLAlchemy takes `:x` for a parameter.
    escaped = text.replace(":", "\\:")
    return f"with op.get_context().autocommit_block():\n    op.execute({escaped!r})\n"
