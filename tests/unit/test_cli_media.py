"""Times as people type them for signed addresses."""

from __future__ import annotations

import pytest
import typer

from soundhash.cli._media import parse_time_s


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1.5h", 5400), ("7D", 604_800)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time_s(text, "--sign") == seconds


@pytest.mark.parametrize("text", ["", "soon", "h", "0", "-1h", "8d", "nan", "infh", "1w"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time"):
        parse_time_s(text, "--sign")
