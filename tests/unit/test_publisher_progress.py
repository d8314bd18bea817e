"""A long push is told every ten seconds, a short one never."""

from __future__ import annotations

import io

from plp_builder import log
from publisher.progress import INTERVAL, Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.sent = 0


def told(*moments: tuple[float, int], total: int = 100_000_000) -> list[str]:
    """What is said when so many seconds are over and so many bytes sent."""
    stream = io.StringIO()
    log.configure(stream=stream)
    clock = Clock()
    progress = Progress(total, lambda: clock.sent, lambda: clock.now)
    for seconds, sent in moments:
        clock.now, clock.sent = 100.0 + seconds, sent
        progress.tick()
    log.configure()
    return [" ".join(line.split()[2:]) for line in stream.getvalue().splitlines()]


def test_a_short_push_is_silent() -> None:
    assert told((0.5, 1), (5, 2), (INTERVAL - 0.1, 3)) == []


def test_a_long_push_is_told_with_share_and_rate() -> None:
    assert told((10, 20_000_000), (15, 30_000_000), (20, 25_000_000)) == [
        'pushing sent="20.0 MB" of="100.0 MB" share=20% rate="2.0 MB/s" time=10.0s',
        'pushing sent="25.0 MB" of="100.0 MB" share=25% rate="500.0 kB/s" time=20.0s',
    ]


def test_what_is_sent_twice_is_no_more_than_all() -> None:
    assert "share=100%" in told((10, 300_000_000))[0]


def test_no_rate_is_told_while_nothing_moves() -> None:
    assert told((10, 0), (20, 5_000_000), (30, 5_000_000)) == [
        'waiting for the registry sent="0 B" of="100.0 MB" time=10.0s',
        'pushing sent="5.0 MB" of="100.0 MB" share=5% rate="500.0 kB/s" time=20.0s',
        'waiting for the registry sent="5.0 MB" of="100.0 MB" time=30.0s',
    ]


def test_nothing_to_send_is_no_error() -> None:
    assert told((10, 0), total=0) == ['waiting for the registry sent="0 B" of="0 B" time=10.0s']
    assert "share=100%" in told((10, 1), total=0)[0]
