"""docs/sdk.md and docs/cli.md say what is so: their code runs, and nothing is left out."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.media import encode
from tests.platforms import RunningPlatform
from tests.sounds import tune
from typer.main import get_command

import soundhash
from soundhash.cli._app import app

DOCS = Path(__file__).parents[2] / "docs"


def test_the_code_of_the_sdk_page_runs(platform: RunningPlatform, tmp_path: Path) -> None:
    (tmp_path / "song.mp3").write_bytes(encode(tune(12.0, 751), "mp3", rate_hz=44100))
    (tmp_path / "clip.wav").write_bytes(encode(tune(12.0, 751)[8000 * 3 : 8000 * 9]))
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "sdk.md").read_text(), re.M | re.S)
    assert len(blocks) >= 4
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, "SOUNDHASH_ADDRESS": platform.address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "A song" in done.stdout and "found A song" in done.stdout


def test_the_sdk_page_is_complete() -> None:
    page = (DOCS / "sdk.md").read_text()
    members = inspect.getmembers_static(soundhash.Client)
    assert {"upload", "match", "raw"} <= {name for name, _ in members}
    for name, method in members:
        if name.startswith("_") or name in ("close", "address"):
            continue
        assert f"`{name}" in page, name
        if inspect.isfunction(method):
            told = re.search(rf"`{name}\(([^`]*)\)`", page)
            assert told, name
            for parameter in list(inspect.signature(method).parameters)[1:]:
                assert parameter in told[1] or parameter == "timeout_s", (name, parameter)
    for name in soundhash.__all__:
        kind = getattr(soundhash, name)
        if inspect.isclass(kind) and issubclass(kind, soundhash.SoundHashError):
            assert f"`{name}`" in page, name


def test_the_cli_page_is_complete() -> None:
    page = (DOCS / "cli.md").read_text()
    for name, command in vars(get_command(app))["commands"].items():
        told = re.search(rf"`{name}( [^`]*)?`", page)
        assert told, name
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option not in ("--help", "--address"):
                    assert option in told[0], (name, option)
