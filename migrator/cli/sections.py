"""The list of commands, in the order in which a change meets them."""

from collections.abc import Mapping

import click

#: Titles of the list, each with its commands.
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Write": ("init", "revision", "patterns", "lint"),
    "Carry a change through": (
        "plan",
        "expand",
        "backfill",
        "verify",
        "contract",
        "rollback",
    ),
    "Look": ("status", "log", "reconcile"),
    "While a backfill runs": ("pause", "resume", "throttle", "abort"),
    "Deploy": ("hook",),
    "Try": ("demo", "server"),
}


class Sections(click.Group):
    """A group of commands that lists them by what they are for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names in the order of the sections."""
        return [name for names in SECTIONS.values() for name in names]

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write a list for each section."""
        widest = max(map(len, self.commands))
        room = formatter.width - 6 - widest
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (
                            name.ljust(widest),
                            self.commands[name].get_short_help_str(room),
                        )
                        for name in names
                    ]
                )
