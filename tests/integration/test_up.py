"""`soundhash up`: one line, one copy, nothing left behind, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.platforms import (
    START_TIMEOUT_S,
    RunningPlatform,
    environment,
    read_line,
    start_up,
    stop_up,
)

from soundhash_server.embedded import spawn

SERVING = health_pb2.HealthCheckResponse.SERVING
EMBEDDED = {"postgres", "valkey-server"}
NOBODY = 65534


def is_serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=2
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == SERVING)


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def all_end(processes: list[psutil.Process], timeout_s: float) -> bool:
    """Whether all end in time; one that only waits for being collected by init has ended."""
    _, left = psutil.wait_procs(processes, timeout=timeout_s)
    return not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in left)


def run_command(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "soundhash_server", *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_life_on_the_embedded_default(tmp_path: Path) -> None:
    data_dir = tmp_path / "a folder with spaces"
    env = environment(data_dir, {})
    process = start_up(env)
    line = read_line(process, START_TIMEOUT_S)
    address = line.split()[4]
    assert line == f"SoundHash is ready on {address} (data in {data_dir})\n"
    assert is_serving(address)
    running = RunningPlatform(address, data_dir, process, env)
    assert {child.name() for child in running.processes()} >= EMBEDDED

    second = run_command(env, "up")
    assert (second.returncode, second.stdout) == (1, "")
    assert f"process {process.pid}" in second.stderr
    assert str(data_dir) in second.stderr
    assert second.stderr.count("\n") == 1
    assert is_serving(address), "the refused copy has disturbed the first"

    checked = run_command(env, "doctor", "--port", address.split(":")[1])
    assert checked.returncode == 0, checked.stdout
    assert "a SoundHash server is ready" in checked.stdout
    assert run_command(env, "migrate").stdout == "nothing to do\n"

    # Whatever is killed comes back, on the same address.
    killed = [running.server, running.worker, *map(running.process, EMBEDDED)]
    for child in killed:
        child.kill()
    psutil.wait_procs(killed, timeout=5)
    wait_until(lambda: {child.name() for child in running.processes()} >= EMBEDDED)
    wait_until(lambda: is_serving(address))
    assert running.server.is_running()
    assert running.worker.is_running()

    below = running.processes()
    process.kill()
    _, errors = process.communicate()
    assert sorted(line.split(";")[0] for line in errors.decode().splitlines()) == [
        "soundhash up: the embedded PostgreSQL ended",
        "soundhash up: the embedded Valkey ended",
        "soundhash up: the server ended (SIGKILL)",
        "soundhash up: the worker ended (SIGKILL)",
    ]

    # The old database is still shutting down: the new one waits for it.
    process = start_up(env)
    assert read_line(process, START_TIMEOUT_S).startswith("SoundHash is ready on ")
    assert all_end(below, 20), "killing it has left processes behind"
    below = psutil.Process(process.pid).children(recursive=True)
    assert {child.name() for child in below} >= EMBEDDED
    assert stop_up(process) == (0, "")
    assert all_end(below, 5)
    assert run_command(env, "migrate").stdout == "nothing to do\n", "the database was kept"


def test_taken_port_is_said_and_ends_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run_command(environment(tmp_path, {"PORT": port}), "up")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "SOUNDHASH_PORT" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_server_that_cannot_start_ends_it_with_its_own_words(
    postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url, "TLS_CERT": "/no/cert"}
    ended = run_command(environment(tmp_path, settings), "up")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "SOUNDHASH_TLS_KEY" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_database_that_cannot_be_reached(redis_url: str, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": "postgresql://u:pass@127.0.0.1:1/d", "REDIS_URL": redis_url}
    ended = run_command(environment(tmp_path, settings), "migrate")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "database" in ended.stderr
    assert "pass" not in ended.stderr
    checked = run_command(environment(tmp_path, settings), "doctor")
    assert checked.returncode == 1
    assert "problem  database" in checked.stdout
    assert "SOUNDHASH_DATABASE_URL" in checked.stdout


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        (["up"], {"PORT": "http"}, "SOUNDHASH_PORT is 'http'"),
        (["serve"], {}, "soundhash up"),
        (["serve"], {"LOG_FORMAT": "xml"}, "SOUNDHASH_LOG_FORMAT"),
    ],
)
def test_unusable_settings_are_one_clear_line(
    arguments: list[str], settings: dict[str, str], says: str, tmp_path: Path
) -> None:
    ended = run_command(environment(tmp_path, settings), *arguments)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_data_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = run_command(environment(tmp_path / "file" / "data", {}), "up")
    assert ended.returncode == 1
    assert "SOUNDHASH_DATA_DIR" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_embedded_database_as_an_unprivileged_user() -> None:
    root = os.geteuid() == 0
    # Anybody else is without privileges already.
    uid, gid = (NOBODY, NOBODY) if root else (os.geteuid(), os.getegid())
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, uid, gid)
        data_dir, log = Path(folder) / "data", Path(folder) / "log"
        for said in ("applied: 0001_init", "nothing to do"):
            with log.open("wb") as output:
                command = spawn(
                    [sys.executable, "-m", "soundhash_server", "migrate"],
                    env=environment(data_dir, {}),
                    output=output.fileno(),
                    uid=uid if root else None,
                    gid=gid if root else None,
                    reach=True,  # to this environment's own Python, wherever it lies
                )
                status = command.wait(60)
            assert log.read_text().startswith(said)
            assert status == 0
        assert (data_dir / "postgres" / "cluster").stat().st_uid == uid
        # Root takes it over as that user's.
        assert run_command(environment(data_dir, {}), "migrate").stdout == "nothing to do\n"


def test_signals_while_starting_stop_it(tmp_path: Path) -> None:
    process = start_up(environment(tmp_path, {}))
    wait_until(lambda: bool(psutil.Process(process.pid).children()))
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, b"", b"")
    assert all_end(below, 5)
