""".env.example has every setting, with its meaning and default, as settings.py says.

`python -m tests.contract.test_env_example` writes it anew (`make docs`).
"""

from __future__ import annotations

import dataclasses
import textwrap
from pathlib import Path

from soundhash_server.settings import DEFAULT_DATA_DIR, PREFIX, Settings

PAGE = Path(__file__).parents[2] / ".env.example"
HEAD = """\
# Every setting of SoundHash, at its default. Copy this file to .env, take the # from the lines that
# you change, and load it before `soundhash up`, `serve` or `work`:
#
#     set -a; . ./.env; set +a
#
# Put values with spaces in quotes. Sizes are in bytes, times in seconds. Written by `make docs`
# from server/soundhash_server/settings.py; docs/ingestion.md explains what belongs to sources.
"""
WIDTH = 100


def render() -> str:
    parts = [HEAD]
    for spec in dataclasses.fields(Settings):
        lines = textwrap.wrap(
            spec.metadata["doc"], WIDTH, initial_indent="# ", subsequent_indent="# "
        )
        default = str(int(spec.default) if isinstance(spec.default, bool) else spec.default)
        if spec.default == DEFAULT_DATA_DIR:
            lines.append("# Default: the user's data folder for `soundhash`.")
            default = ""
        parts.append("\n".join([*lines, f"#{PREFIX}{spec.name.upper()}={default}"]) + "\n")
    return "\n".join(parts)


def test_file_is_what_the_code_says() -> None:
    assert PAGE.read_text() == render(), "run `make docs`"


def test_every_default_is_taken_as_it_stands() -> None:
    env = dict(
        line.removeprefix("#").partition("=")[::2]
        for line in render().splitlines()
        if line.startswith(f"#{PREFIX}")
    )
    assert len(env) == len(dataclasses.fields(Settings))
    assert Settings.from_env(env) == Settings()


if __name__ == "__main__":
    PAGE.write_text(render())
