"""The whole platform as real processes, for tests."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

READY = re.compile(r"SoundHash is ready on (\S+) \(data in (.*)\)\n")
START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RunningPlatform:
    """What `soundhash up` runs."""

    address: str
    """host:port of the server."""
    data_dir: Path
    up: subprocess.Popen[bytes]
    """The process of `soundhash up` itself."""
    environment: Mapping[str, str]

    def processes(self) -> list[psutil.Process]:
        """All processes below `soundhash up`."""
        return psutil.Process(self.up.pid).children(recursive=True)

    def process(self, *words: str) -> psutil.Process:
        """The one process whose command line has these words, for example "serve"."""
        (found,) = [
            child
            for child in psutil.Process(self.up.pid).children()
            if all(any(word in part for part in child.cmdline()) for word in words)
        ]
        return found

    @property
    def server(self) -> psutil.Process:
        return self.process("soundhash_server", "serve")

    @property
    def worker(self) -> psutil.Process:
        return self.process("soundhash_workers")


def read_line(process: subprocess.Popen[bytes], timeout_s: float) -> str:
    """The first line that a process prints; "" when it ends without one."""
    assert process.stdout is not None
    line = b""
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not selector.select(left_s):
                raise TimeoutError(f"no line within {timeout_s} s, only {line!r}")
            part = os.read(process.stdout.fileno(), 1)
            if not part:
                break
            line += part
    return line.decode()


def environment(data_dir: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment without its SOUNDHASH_* variables, with these settings instead; a port
    of 0 unless given."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SOUNDHASH_")}
    named = {"DATA_DIR": str(data_dir), "PORT": "0", **settings}
    return {**kept, **{f"SOUNDHASH_{key}": value for key, value in named.items()}}


def start_up(env: Mapping[str, str], *command_prefix: str) -> subprocess.Popen[bytes]:
    """Starts `soundhash up` without waiting for it."""
    return subprocess.Popen(
        [*command_prefix, sys.executable, "-m", "soundhash_server", "up"],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def stop_up(process: subprocess.Popen[bytes], timeout_s: float = 40.0) -> tuple[int, str]:
    """Stops it with SIGINT as Ctrl-C does; its exit status and what it wrote to stderr."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, errors.decode()


@contextmanager
def run_platform(
    data_dir: Path, settings: Mapping[str, str] | None = None, *command_prefix: str
) -> Iterator[RunningPlatform]:
    """Runs `soundhash up` on ``data_dir`` until the end of the block.

    settings: SOUNDHASH_* variables, named without the prefix; without DATABASE_URL and
    REDIS_URL the platform brings its own. command_prefix: words before the command.
    """
    env = environment(data_dir, settings or {})
    process = start_up(env, *command_prefix)
    try:
        ready = READY.fullmatch(read_line(process, START_TIMEOUT_S))
        if ready is None:
            raise AssertionError(f"the platform did not start: {stop_up(process)}")
        yield RunningPlatform(ready.group(1), data_dir, process, env)
    finally:
        stop_up(process)
