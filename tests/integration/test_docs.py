"""What docs/quickstart.md and docs/ingestion.md tell people to type works, in its order."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "docs/quickstart.md"
INGESTION = ROOT / "docs/ingestion.md"
SHOWN = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(bash background|bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def workplace() -> Iterator[Path]:
    """A folder that looks like the repository, so that samples/ lands outside the real one."""
    folder = Path(tempfile.mkdtemp(prefix="soundhash-docs-"))
    folder.chmod(0o755)
    for name in ("clients", "tests", "server", "migrations", "Makefile", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    # Whoever runs the tests may use an environment elsewhere.
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "constraints.txt").symlink_to(ROOT / "constraints.txt")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Printed(dict[str, str]):
    """What each block has printed, by its code."""

    def by(self, part: str) -> str:
        """What the first block printed that has this in it."""
        return next(text for code, text in self.items() if part in code)


def run_blocks(text: str, workplace: Path) -> Printed:
    """Runs the blocks of a page in their order; those in the background end with the last one."""
    port = free_port()
    environment = {
        **os.environ,
        "SOUNDHASH_DATA_DIR": str(workplace / "data"),
        "SOUNDHASH_PORT": str(port),
        "SOUNDHASH_ADDRESS": f"127.0.0.1:{port}",
    }
    background: list[subprocess.Popen[str]] = []
    printed = Printed()
    try:
        for kind, code in BLOCK.findall(text):
            if code.strip() == "make setup":
                continue  # has run: the tests need it themselves
            if kind == "bash background":
                process = subprocess.Popen(
                    ["bash", "-c", f"exec {code.strip()}"],
                    cwd=workplace,
                    env=environment,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                background.append(process)
                assert process.stdout is not None
                # Each says in one line that it is ready.
                printed[code] = process.stdout.readline()
                assert printed[code], code
                continue
            command = (
                ["bash", "-euo", "pipefail", "-c", code]
                if kind == "bash"
                else [sys.executable, "-c", code]
            )
            done = subprocess.run(
                command,
                cwd=workplace,
                env=environment,
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
            assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
            printed[code] = done.stdout
    finally:
        for process in background:
            process.send_signal(signal.SIGINT)
        for process in background:
            process.wait(30)
    return printed


@pytest.mark.timeout(240)
def test_quickstart_runs(workplace: Path) -> None:
    text = QUICKSTART.read_text()
    assert len(BLOCK.findall(text)) >= 8
    output_of = run_blocks(text, workplace).by

    assert "is ready" in output_of("soundhash up")
    assert "Tune No. 3" in output_of("match samples-clip.mp3\n")
    assert '"title": "Tune No. 3"' in output_of("--json\n")
    assert "Tune No. 3" in output_of("listen samples-clip.mp3")
    assert "Tune No. 3 from" in output_of("import soundhash")
    assert "soundhash.v1.MatchService" in output_of("list\n")
    assert '"video_count": "6"' in output_of("GetStats")
    assert "found: clean" in output_of("soundhash bench")
    assert (workplace / "soundhash-bench.svg").stat().st_size > 5000


@pytest.mark.timeout(240)
def test_ingestion_runs(workplace: Path) -> None:
    text = INGESTION.read_text().replace("18765", str(free_port()))
    output_of = run_blocks(text, workplace).by

    assert "is ready" in output_of("soundhash up")
    assert "indexed" in output_of("samples/Tune*1.mp3")
    assert "Tune No. 3" in output_of("Tune%20No.%203.mp3 --wait")
    assert "Tune No. 4" in output_of("--limit-rate")
    assert "Tune No. 5" in output_of("soundhash match")
    assert "Tune No. 2 is Tune No. 2" in output_of("client.match_url")
    assert "HTTP_NOT_FOUND" in output_of("missing.mp3")


def test_commands_that_are_only_shown_exist() -> None:
    from soundhash.cli._app import app

    lines = [
        line
        for block in SHOWN.findall(INGESTION.read_text())
        for line in block.splitlines()
        if " .venv/bin/soundhash" in f" {line}"
    ]
    assert len(lines) >= 20
    for line in lines:
        words = shlex.split(line, comments=True)
        words = words[words.index(".venv/bin/soundhash") + 1 :]
        if words[0] == "up":
            continue  # its options are the platform's
        # Options are read before help is given.
        done = CliRunner().invoke(app, [*words, "--help"])
        assert done.exit_code == 0, f"{line}\n{done.output}"
