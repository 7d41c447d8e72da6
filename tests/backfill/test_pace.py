"""How long a chunk should take, and how large it becomes."""

import pytest

from migrator.backfill.pace import Pace, gentle_ms


@pytest.mark.parametrize(
    ("whole_s", "ms"), [(0.1, 10), (4, 20), (10, 50), (20, 100), (86_400, 100)]
)
def test_short_passes_have_short_chunks(whole_s: float, ms: float) -> None:
    """So that a row is held for half a per cent of the time at most."""
    assert gentle_ms(100, whole_s * 1000) == ms


def test_a_target_below_the_shortest_counts() -> None:
    """It is what a person asked for."""
    assert gentle_ms(5, 60_000) == 5


@pytest.mark.parametrize(
    ("took", "size"),
    [
        ((16, 10), 32),  # at most doubled
        ((16, 400), 4),
        ((2, 1), 16),  # cut short by its window's end
        ((16, 100_000), 1),
        ((2048, 100), 64),  # never above the most
    ],
)
def test_sizes_follow_the_target(took: tuple[int, float], size: int) -> None:
    """Growth is bounded, shrinking is not."""
    pace = Pace(target_ms=100, most=64, size=16)
    pace.took(*took)
    assert pace.size == size


def test_a_bound_cuts_and_never_grows() -> None:
    """A chunk that took twice what it may is halved."""
    pace = Pace(target_ms=100, most=64, size=40)
    pace.bound(32, took=200, most=100)
    assert pace.size == 16
    pace.bound(16, took=50, most=100)
    assert pace.size == 16


def test_a_slow_line_does_not_shrink_chunks_for_ever() -> None:
    """What a chunk of any size takes is no reason to make it smaller."""
    pace = Pace(target_ms=100, most=2048, size=16)
    for _ in range(20):
        # 150 ms of round trips, and 1 ms for each block.
        pace.took(pace.size, 150 + pace.size, 150)
    assert pace.size == 50
    pace = Pace(target_ms=100, most=2048, size=16)
    for _ in range(20):
        pace.took(pace.size, 5 + pace.size, 5)
    assert pace.size == 95
