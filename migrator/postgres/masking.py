"""What may be told of a server's message: it may repeat values of rows."""

import re

#: Begins a value in the message, in the server's language.
_QUOTE = re.compile('["\u00ab\u00bb\u201c\u201e\u300c]')
#: Data exceptions, and syntax errors, which repeat a piece of the statement.
_QUOTING = ("22", "42601")
#: The text of an application's own functions: RAISE and ASSERT.
_OWN = ("P0001", "P0004")


def masked(code: str, message: str) -> str:
    """
    Return the first line of a message as far as it holds no value.

    Args:
        code: the SQLSTATE.
        message: the server's, without DETAIL and CONTEXT.

    Returns:
        "" where all of it may be a value.
    """
    if code in _OWN:
        return ""
    if code.startswith(_QUOTING):
        # A value may have quotes and line breaks: where it ends is not known.
        found = _QUOTE.search(message)
        if found:
            message = f'{message[: found.start()]}"…"'
    return message.partition("\n")[0]
