"""Safe forms that are no pattern: a statement in another place of the revision."""

from migrator.lint import source

#: A statement that has to be a transaction of its own.
ALONE = """\
with op.get_context().autocommit_block():
    ...  # the statement as it stands, alone
"""


def alone(text: str) -> str:
    """Return an autocommit block that runs SQL."""
    # SQLAlchemy takes `:x` for a parameter.
    escaped = text.replace(":", "\\:")
    return (
        "with op.get_context().autocommit_block():\n"
        f"    op.execute({source.block(escaped)})\n"
    )
