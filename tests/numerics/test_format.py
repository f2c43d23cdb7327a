"""Numbers as text."""

import math

import pytest

from sparsight.numerics import format as words


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "100 %"),
        (0.0, "0 %"),
        (0.374, "37.4 %"),
        (0.0911, "9.1 %"),
        (0.0625, "6.3 %"),
        (0.40625, "40.6 %"),
        (0.1225, "12.3 %"),
        (0.00025, "0.025 %"),
        (0.0025, "0.25 %"),
        (0.9999, "99.99 %"),
        (1 - 1e-12, "> 99.99999 %"),
        (1e-7, "0.000010 %"),
        (None, "–"),
        (math.nan, "nan"),
    ],
)
def test_percent(share: float | None, text: str) -> None:
    assert words.percent(share) == text


def test_compression_and_durations() -> None:
    assert [words.compression(k, 1000) for k in (1000, 91, 3, 0)] == ["1.0×", "11.0×", "333×", "∞"]
    spelled = [words.duration(t) for t in (0.0, 0.012, 2.5, 59.96, 125.0, 3 * 3600 + 4 * 60)]
    assert spelled == ["0 s", "12.0 ms", "2.50 s", "1 min 00 s", "2 min 05 s", "3 h 04 min"]
    assert [words.count(v) for v in (3.0, 2.5, 1234.0)] == ["3", "2.5", "1,234"]


def test_shares_and_differences() -> None:
    assert [words.exactly(x) for x in (0.1, 0.123456, 1.0)] == ["10 %", "12.35 %", "100 %"]
    assert [words.points(x) for x in (0.005, -0.0012, 0.0)] == ["+0.50 points", "-0.12 points", "+0.00 points"]
    assert [words.margin(x, False) for x in (0.5, 1.0, 2.0)] == ["0.5 points", "1 point", "2 points"]
    assert words.margin(1.0, True) == "1 %"
    assert words.apart(0.881, 0.883, "dense", 1) == "0.2 points below dense"
    assert words.apart(0.886, 0.883, "dense", 1) == "0.3 points above dense"
    assert words.apart(0.88301, 0.883, "dense", 1) == "as dense"


def test_sizes() -> None:
    spelled = [words.bytes_of(x) for x in (0, 812, 12_400, 999_960, 12_400_000, 1_200_000_000)]
    assert spelled == ["0 bytes", "812 bytes", "12.4 kB", "1.0 MB", "12.4 MB", "1.2 GB"]
