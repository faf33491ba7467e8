"""The embedded database and queue: kills, stale files, odd folders, other people's processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis import Redis

from soundhash_server.embedded import MAX_SOCKET_PATH_BYTES, Daemon, EmbeddedError, make_private_dir
from soundhash_server.embedded_platform import attach
from soundhash_server.embedded_postgres import Postgres
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.settings import Settings, SettingsError


@contextmanager
def started(daemon: Daemon) -> Iterator[None]:
    daemon.start()
    try:
        yield
    finally:
        daemon.stop()


async def ask(server: Postgres, query: str) -> object:
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with us."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_postgres_keeps_its_rows_through_a_kill(data_dir: Path) -> None:
    server = Postgres(data_dir)
    with started(server):
        await ask(server, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        url = server.url
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running)
        server.start()
        assert server.url == url
        assert await ask(server, "SELECT count(*) FROM kept") == 1000
        server.stop()
        server.start()
        assert await ask(server, "SELECT count(*) FROM kept") == 1000


async def test_postgres_starts_right_after_a_kill_with_clients_connected(data_dir: Path) -> None:
    server = Postgres(data_dir)
    with started(server):
        clients = [await asyncpg.connect(server.url) for _ in range(5)]
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        while server.running:
            pass
        server.start()
        assert await ask(server, "SELECT 1") == 1
        for client in clients:
            client.terminate()


async def test_postgres_with_a_pid_file_of_somebody_else(data_dir: Path) -> None:
    server = Postgres(data_dir)
    with started(server):
        await ask(server, "CREATE TABLE kept AS SELECT 7 AS n")
        content = (server.work_dir / "postmaster.pid").read_text()
        pid = server.pid
    with bystander() as other:
        stale = content.replace(str(pid), str(other.pid), 1)
        (server.work_dir / "postmaster.pid").write_text(stale)
        assert server.recorded_pid() == other.pid
        assert server.left_behind() is None
        with started(server):
            assert await ask(server, "SELECT n FROM kept") == 7
        assert other.poll() is None, "it was harmed"


async def test_valkey_keeps_its_queue_through_a_kill(data_dir: Path) -> None:
    server = Valkey(data_dir)
    with started(server):
        with Redis.from_url(server.url) as client:
            for number in range(100):
                client.zadd("queue", {f"job-{number}": number})
        time.sleep(1.1)  # it is written every second
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running)
        server.start()
        with Redis.from_url(server.url) as client:
            assert client.zcard("queue") == 100
        pid_file = server.home / "valkey.pid"
        with bystander() as other:
            server.stop()
            pid_file.write_text(str(other.pid))
            server.start()
            with Redis.from_url(server.url) as client:
                assert client.zcard("queue") == 100
            assert other.poll() is None


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_server_left_behind_is_ended_and_replaced(
    kind: type[Postgres] | type[Valkey], data_dir: Path
) -> None:
    first = kind(data_dir)
    with started(first):
        old = first.pid
        assert old is not None
        second = kind(data_dir)  # knows nothing of the first
        assert second.left_behind() == old
        with started(second):
            assert second.pid != old
            assert second.left_behind() is None
        wait_until(lambda: not first.running)


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_server_ends_with_its_parent(kind: type[Postgres] | type[Valkey], data_dir: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; "
        f"from {kind.__module__} import {kind.__name__} as Kind; "
        "server = Kind(Path(sys.argv[1])); server.start(); print(server.pid, flush=True); "
        "time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(data_dir)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    assert server.name() == kind.executable
    parent.kill()
    parent.communicate()
    wait_until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    # Nobody was there to do it.
    shutil.rmtree(kind(data_dir)._sockets, ignore_errors=True)


@pytest.mark.parametrize("name", ["with spaces & ümläuts?%", "l" * 120, "quote'\"d,x"])
async def test_odd_folders(name: str, tmp_path: Path) -> None:
    postgres, valkey = Postgres(tmp_path / name), Valkey(tmp_path / name)
    with started(postgres), started(valkey):
        assert await ask(postgres, "SELECT 1") == 1
        with Redis.from_url(valkey.url) as client:
            assert client.ping()
        assert (tmp_path / name / "postgres" / "cluster").is_dir()
        for socket in (valkey.url.removeprefix("unix://").split("?")[0], str(postgres._sockets)):
            assert len(socket) <= MAX_SOCKET_PATH_BYTES
            # Nobody else can enter.
            folder = Path(socket) if Path(socket).is_dir() else Path(socket).parent
            assert folder.stat().st_mode & 0o077 == 0
    for daemon in (postgres, valkey):
        outside = tmp_path / name not in daemon._sockets.parents
        assert daemon._sockets.exists() is not outside, "nothing is left outside the data"


async def test_nothing_listens_on_the_network_and_secrets_are_private(data_dir: Path) -> None:
    postgres, valkey = Postgres(data_dir), Valkey(data_dir)
    with started(postgres), started(valkey):
        for daemon in (postgres, valkey):
            assert psutil.Process(daemon.pid).net_connections("inet") == []
        password = data_dir / "postgres" / "password"
        assert password.stat().st_mode & 0o077 == 0
        assert (data_dir / "postgres").stat().st_mode & 0o077 == 0
        assert (data_dir / "valkey").stat().st_mode & 0o077 == 0
        wrong = postgres.url.replace(password.read_text(), "wrong")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(wrong)


async def test_interrupted_first_start_begins_anew(data_dir: Path) -> None:
    half = data_dir / "postgres" / "cluster.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    if os.geteuid() == 0:
        os.chown(half.parent, 65534, -1)
    server = Postgres(data_dir)
    with started(server):
        assert await ask(server, "SELECT 1") == 1


def test_cluster_of_another_major_version_is_refused(data_dir: Path) -> None:
    server = Postgres(data_dir)
    with started(server):
        pass
    (server.work_dir / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError, match="made by PostgreSQL 9"):
        server.start()


def test_damaged_cluster_says_what_postgres_says(data_dir: Path) -> None:
    server = Postgres(data_dir)
    with started(server):
        pass
    (server.work_dir / "global" / "pg_control").unlink()
    with pytest.raises(EmbeddedError, match="pg_control"):
        server.start()
    assert not server.running


def test_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(EmbeddedError, match="belongs to somebody else"):
        make_private_dir(tmp_path / "link")


def test_log_does_not_grow_for_ever(data_dir: Path) -> None:
    server = Valkey(data_dir)
    server.home.mkdir()
    server.log_path.write_bytes(b"x" * (5 << 20))
    with started(server):
        assert server.log_path.stat().st_size < 1 << 20
    assert server.log_path.with_suffix(".log.1").stat().st_size == 5 << 20


async def test_attach_uses_what_runs(data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir)
    with pytest.raises(SettingsError, match="soundhash up"):
        attach(settings)
    postgres, valkey = Postgres(data_dir), Valkey(data_dir)
    with started(postgres), started(valkey):
        attached = attach(settings)
        assert (attached.database_url, attached.redis_url) == (postgres.url, valkey.url)
    given = Settings(data_dir=data_dir, database_url="postgresql://a/b", redis_url="redis://c")
    assert attach(given) == given
