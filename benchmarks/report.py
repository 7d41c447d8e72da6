"""The results as a table and as a plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Row:
    """
    One measure.

    Args:
        measure: what is compared with what.
        ours: the figure of ours, with its unit.
        rival: the figure that it is compared with.
        ratio: ours to rival; above 1 is faster, or, with `less`, more.
        goal: the ratio to reach; 0 where there is none.
        less: whether less is better.
    """

    measure: str
    ours: str
    rival: str
    ratio: float
    goal: float
    less: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if not self.goal:
            return None
        return self.ratio <= self.goal if self.less else self.ratio >= self.goal


def table(rows: Sequence[Row]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| measure | ours | rival | ratio | goal | met |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        goal = f"{'≤' if row.less else '≥'} {row.goal:g}" if row.goal else "none"
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        lines.append(
            f"| {row.measure} | {row.ours} | {row.rival} | {row.ratio:.2f} | {goal}"
            f" | {met} |"
        )
    return "\n".join(lines)


def write(folder: Path, part: str, said: str, lines: str) -> None:
    """
    Put results into performance.md, between the marks of their part.

    Args:
        folder: where the page is.
        part: "results", "triggers" or "million".
        said: how they were measured.
        lines: their table.
    """
    page = folder / "performance.md"
    begin, end = f"<!-- {part} -->", f"<!-- end of {part} -->"
    head, _, rest = page.read_text().partition(begin)
    _, _, tail = rest.partition(end)
    page.write_text(f"{head}{begin}\n{said}\n\n{lines}\n{end}{tail}")


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Draw the rates as times the rivals'."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    shown = [r for r in rows if "giant" in r.measure or "pgroll" in r.measure]
    shown = [r for r in shown if not r.less][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(shown) + 1))
    axes.barh([r.measure for r in shown], [r.ratio for r in shown], color="#4477aa")
    axes.axvline(1, color="#222222", linewidth=1)
    axes.set_xlabel("times the rival's rows per second")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
