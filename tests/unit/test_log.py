"""Logs: one line an event, no secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from soundhash_server.log import set_up_logging, without_secrets
from soundhash_server.settings import Settings, SettingsError


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://u:secret@h/d", "postgresql://u:***@h/d"),
        ("redis://:secret@h:1/0 and x", "redis://:***@h:1/0 and x"),
        ("at postgresql://u:s%40x@/d?host=/tmp,", "at postgresql://u:***@/d?host=/tmp,"),
        ("https://h:443/a@b", "https://h:443/a@b"),
        ("unix:///run/x.sock?db=0", "unix:///run/x.sock?db=0"),
        ("", ""),
    ],
)
def test_passwords_of_urls_are_taken_out(text: str, clean: str) -> None:
    assert without_secrets(text) == clean


def test_json_lines_of_ours_and_of_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(Settings(log_format="json"))
    structlog.get_logger("ours").info("event", urls=["redis://:secret@h"], n=1)
    logging.getLogger("theirs").warning("went to %s", "postgresql://u:secret@h/d")
    try:
        raise ValueError("postgresql://u:secret@h/d")
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    structlog.get_logger("ours").debug("not at this level")
    logging.getLogger("arq.worker").info("too much")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "secret" not in captured.err
    lines = [json.loads(line) for line in captured.err.splitlines()]
    assert [line["event"].split()[0] for line in lines] == ["event", "went", "failed"]
    assert lines[0]["n"] == 1
    assert lines[0]["level"] == "info"
    assert lines[1]["logger"] == "theirs"
    assert "ValueError" in lines[2]["exception"]


def test_console_lines(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(Settings(log_level="debug"))
    structlog.get_logger("ours").debug("event", number=1)
    assert "number=1" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"log_format": "xml"}, {"log_level": "loud"}])
def test_unknown_format_and_level(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="must be one of"):
        set_up_logging(Settings.from_env({}, **wrong))
