"""How sizes and lengths are written on the command line."""

from __future__ import annotations

import pytest
import typer

from soundhash import FetchOptions
from soundhash.cli._fetching import fetch_options, parse_length_s, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 0),
        ("1", 1),
        ("1048576", 1 << 20),
        ("500M", 500 << 20),
        ("1.5k", 1536),
        ("2GiB", 2 << 30),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--max-bytes") == size


@pytest.mark.parametrize(
    ("text", "length_s"), [("90", 90.0), ("1:30", 90.0), ("1:00:01.5", 3601.5)]
)
def test_lengths(text: str, length_s: float) -> None:
    assert parse_length_s(text, "--max-duration") == length_s


@pytest.mark.parametrize("text", ["0", "-1", "five", "1X", "1 000", "M"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_size(text, "--max-bytes")


@pytest.mark.parametrize("text", ["0", "-1", "1:2:3:4", "1h"])
def test_no_lengths(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_length_s(text, "--max-duration")


def test_without_options_the_settings_hold() -> None:
    assert fetch_options() is None
    assert fetch_options(limit_rate="1k") == FetchOptions(max_bytes_per_s=1024)
