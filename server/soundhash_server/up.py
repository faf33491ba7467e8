"""``soundhash up``: the whole platform in one command, watched over until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from soundhash_server.embedded import EmbeddedError, spawn
from soundhash_server.embedded_platform import Embedded, take_data_lock
from soundhash_server.errors import PlatformError
from soundhash_server.settings import Settings, SettingsError
from soundhash_server.store.migrate import migrate

_POLL_READY_S = 0.02
_POLL_S = 0.2
_DATABASE_PATIENCE_S = 60.0
_BACKOFF_FIRST_S = 0.5
_BACKOFF_CAP_S = 10.0
_STEADY_S = 30.0
"""What has lived this long starts again at once when it ends."""
_STOP_MARGIN_S = 10.0
LOG_LIMIT_BYTES = 16 << 20
_WORKER_NICENESS = 5
EXIT_CONFIGURATION = 2
"""A child's exit status for what starting again cannot mend."""


class UpError(Exception):
    """The platform cannot start; the message says why and what to do."""


class Backoff:
    """When something that ends may be started again."""

    def __init__(self) -> None:
        self._delay_s = 0.0
        self._started = 0.0
        self._ended = 0.0

    def started(self) -> None:
        self._started = time.monotonic()
        self._ended = 0.0

    def may_start(self) -> bool:
        """Called while it is down: whether its pause is over."""
        now = time.monotonic()
        if not self._ended:
            self._ended = now
            if now - self._started >= _STEADY_S:
                self._delay_s = 0.0
            else:
                self._delay_s = min(max(2 * self._delay_s, _BACKOFF_FIRST_S), _BACKOFF_CAP_S)
        return now - self._ended >= self._delay_s


class Child:
    """The server or the worker: a process of ours that is started again when it ends."""

    def __init__(
        self, name: str, arguments: list[str], log_path: Path, *, niceness: int = 0
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._arguments = arguments
        self._niceness = niceness
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_fd: int | None = None
        self.port: int | None = None
        """Told by the server once it is ready."""
        self.backoff = Backoff()

    def start(self, environment: dict[str, str]) -> None:
        self._close_pipe()
        self.rotate_log()
        self._ready_fd, told = os.pipe()
        os.set_blocking(self._ready_fd, False)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.log_path.open("ab") as log:
                self._process = spawn(
                    [sys.executable, *self._arguments],
                    env={**environment, "SOUNDHASH_READY_FD": str(told)},
                    output=log.fileno(),
                    pass_fds=(told,),
                    niceness=self._niceness,
                )
        finally:
            os.close(told)
        self.backoff.started()

    @property
    def was_started(self) -> bool:
        return self._process is not None

    def poll(self) -> int | None:
        """Exit status; None while it runs."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.poll()

    def read_port(self) -> None:
        """Takes what the server told, if it did."""
        if self._ready_fd is None:
            return
        try:
            told = os.read(self._ready_fd, 64)
        except BlockingIOError:
            return
        if told.strip().isdigit():
            self.port = int(told)
        self._close_pipe()

    def rotate_log(self) -> None:
        """Keeps the log below its limit, one old part aside; the process goes on writing."""
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_LIMIT_BYTES:
            shutil.copyfile(self.log_path, self.log_path.with_suffix(".log.1"))
            os.truncate(self.log_path, 0)

    def last_words(self) -> str:
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except OSError:
            return "it left no log"
        return lines[-1] if lines else "it logged nothing"

    def ask_to_stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait_stopped(self, deadline: float, hurry: Callable[[], bool]) -> None:
        """Waits for its end until ``deadline`` or while there is no hurry, then kills it."""
        while self._process is not None and self._process.poll() is None:
            if time.monotonic() > deadline or hurry():
                self._process.kill()
                self._process.wait()
            time.sleep(_POLL_READY_S)
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._ready_fd is not None:
            os.close(self._ready_fd)
            self._ready_fd = None


class Up:
    """The processes of one platform and their supervision.

    Children get SIGTERM from the kernel when this process dies, however it does, and the
    embedded database and queue likewise: nothing is left running.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = dataclasses.replace(settings, data_dir=settings.data_dir.absolute())
        self._signals = 0
        self._embedded = Embedded(self._settings)
        logs = self._settings.data_dir / "log"
        self._server = Child("server", ["-m", "soundhash_server", "serve"], logs / "server.log")
        # Answers come before ingest where both want the processor.
        self._worker = Child(
            "worker", ["-m", "soundhash_workers"], logs / "worker.log", niceness=_WORKER_NICENESS
        )
        self._backoffs = {daemon.name: Backoff() for daemon in self._embedded.daemons}

    def run(self) -> None:
        """Starts everything, says so, and watches over it until SIGINT, SIGTERM or SIGHUP.

        Raises SettingsError, EmbeddedError, PlatformError and UpError, with all stopped again.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            signal.signal(signal.SIGHUP, self._on_signal)
        with take_data_lock(self._settings):
            self._check_port()
            try:
                if self._start():
                    self._watch()
            finally:
                self._stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _start(self) -> bool:
        """True when the platform is ready, False when it was told to stop before that."""
        for daemon in self._embedded.daemons:
            daemon.spawn()
        # It loads while the database starts and waits for it. The worker comes after it: loading
        # beside it would make both slower, and nobody can submit work before.
        environment = self._environment()
        self._server.start(environment)
        for daemon in self._embedded.daemons:
            while not daemon.check_ready():
                if self._signals:
                    return False
                time.sleep(_POLL_READY_S)
            self._backoffs[daemon.name].started()
        self._migrate()
        while self._server.port is None:
            if self._signals:
                return False
            self._look_after()
            self._server.read_port()
            time.sleep(_POLL_READY_S)
        self._worker.start(self._environment())
        host = self._settings.host
        shown = f"[{host}]" if ":" in host else host
        _say(
            f"SoundHash is ready on {shown}:{self._server.port} (data in {self._settings.data_dir})"
        )
        return True

    def _check_port(self) -> None:
        """Finds out early what the server would say a few seconds later."""
        host, port = self._settings.host, self._settings.port
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(address)
        except OSError as error:
            raise UpError(
                f"cannot listen on {host}:{port} ({error.strerror}): choose another port with "
                "--port or SOUNDHASH_PORT, or another address with SOUNDHASH_HOST."
            ) from None

    def _migrate(self) -> None:
        deadline = time.monotonic() + _DATABASE_PATIENCE_S
        waiting = False
        while not self._signals:
            try:
                asyncio.run(migrate(self._embedded.settings.database_url))
                return
            except PlatformError as error:
                if error.reason != "DATABASE_UNAVAILABLE" or time.monotonic() > deadline:
                    raise
            if not waiting:
                waiting = True
                _complain("waiting for the database")
            time.sleep(_POLL_S)

    def _watch(self) -> None:
        while not self._signals:
            self._look_after()
            time.sleep(_POLL_S)

    def _look_after(self) -> None:
        for daemon in self._embedded.daemons:
            backoff = self._backoffs[daemon.name]
            if not daemon.running and backoff.may_start():
                _complain(f"the embedded {daemon.name} ended; starting it again")
                daemon.spawn()  # clients wait for it by themselves
                backoff.started()
        for child in self._children:
            if not child.was_started:
                continue
            status = child.poll()
            if status is None:
                child.rotate_log()
                continue
            if status == EXIT_CONFIGURATION and self._server.port is None:
                raise UpError(f"the {child.name} cannot start: {child.last_words()}")
            if child.backoff.may_start():
                _complain(
                    f"the {child.name} ended ({_describe(status)}); starting it again "
                    f"(log: {child.log_path})"
                )
                child.start(self._environment())

    def _stop(self) -> None:
        for child in self._children:
            child.ask_to_stop()
        signals = self._signals
        deadline = time.monotonic() + self._settings.drain_s + _STOP_MARGIN_S
        for child in self._children:
            # Asked twice, the platform ends at once.
            child.wait_stopped(deadline, lambda: self._signals > max(signals, 1))
        self._embedded.stop()

    @property
    def _children(self) -> tuple[Child, ...]:
        return (self._server, self._worker)

    def _environment(self) -> dict[str, str]:
        settings = self._embedded.settings
        if self._server.port is not None:
            settings = dataclasses.replace(settings, port=self._server.port)
        return {**os.environ, **settings.as_env()}


def up(settings: Settings) -> int:
    """Runs the platform; returns the exit status."""
    try:
        Up(settings).run()
    except (SettingsError, EmbeddedError, UpError) as error:
        _complain(str(error))
        return 1
    except PlatformError as error:
        _complain(f"{error.message} {error.remedy}")
        return 1
    return 0


def _describe(status: int) -> str:
    if status < 0:
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"
    return f"exit status {status}"


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody has to read it
        os.write(sys.stdout.fileno(), f"{line}\n".encode())


def _complain(line: str) -> None:
    sys.stderr.write(f"soundhash up: {line}\n")
