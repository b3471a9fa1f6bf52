"""Bar and summary."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1:01 min"), (3599.6, "1:00 h"), (7384, "2:03 h")]
)
def test_durations(seconds: float, text: str) -> None:
    from edge_spine.cli.progress import _duration

    assert _duration(seconds) == text
