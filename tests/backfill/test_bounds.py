"""No chunk outlasts the time after which a request looks for a deadlock."""

import pytest

from migrator.backfill.bounds import bounds


def test_by_default_nothing_is_cut() -> None:
    """A wait of 200 ms and four times 100 ms are well under a second."""
    found = bounds(100, 200, 1000)
    assert (found.target_ms, found.lock_ms, found.statement_ms) == (100, 200, 600)
    assert not found.at_most


@pytest.mark.parametrize("target_ms", [1, 100, 500])
@pytest.mark.parametrize("lock_ms", [1, 200, 10_000])
@pytest.mark.parametrize("deadlock_ms", [200, 1000, 5000])
def test_a_chunk_ends_before_a_request_looks(
    target_ms: float, lock_ms: int, deadlock_ms: int
) -> None:
    """Whatever is set; and one that takes twice its target is let be."""
    found = bounds(target_ms, lock_ms, deadlock_ms)
    assert found.statement_ms <= 0.8 * deadlock_ms
    assert found.lock_ms < found.statement_ms
    assert found.lock_ms + 2 * found.target_ms <= found.statement_ms
    assert found.target_ms <= target_ms
    assert found.lock_ms <= lock_ms
