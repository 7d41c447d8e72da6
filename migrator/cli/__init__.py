"""The command line; the only room that prints and exits."""

import sys

try:
    from migrator.cli.main import main
except KeyboardInterrupt:
    # Ctrl-C while a command's code is still being loaded: a second, or more.
    sys.stderr.write("Stopped; nothing was begun.\n")
    sys.exit(130)

__all__ = ["main"]
