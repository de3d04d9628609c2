"""Times on the command line."""

import pytest

from pipeline.durations import DurationError, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("10h", 36000), ("1h30m", 5400), ("2d", 172800), ("1.5h", 5400)],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "h", "10 h", "-1h", "0s", "1e3s", "10hours", "inf", "١h"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(DurationError, match="expected a time above 0"):
        parse_duration(text)
