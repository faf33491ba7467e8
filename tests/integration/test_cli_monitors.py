"""Monitors, as a user runs them; the test itself is the worker that carries them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.test_cli import PROGRAM, Shell
from tests.integration.test_store_monitors import NOON, OFFLINE, detection, report
from tests.platforms import RunningPlatform, run_platform

from soundhash_server.embedded_valkey import Valkey
from soundhash_server.model import AlertKind, Monitor, MonitorState
from soundhash_server.store.detections import Detections
from soundhash_server.store.monitors import Monitors
from soundhash_server.store.pool import Pool, create_pool

# A public address, which nobody connects to here.
RADIO = "http://8.8.8.8"


class Worker:
    """What a worker does with monitors."""

    def __init__(self, pool: Pool) -> None:
        self.monitors = Monitors(pool)
        self.found = Detections(pool)
        self.tokens: dict[str, UUID] = {}

    async def take(self) -> dict[str, Monitor]:
        """Claims all that wait; by their names."""
        leases = await self.monitors.claim(100, 600.0)
        self.tokens |= {one.monitor.config.name: one.token for one in leases}
        return {one.monitor.config.name: one.monitor for one in leases}


@pytest.fixture(scope="module")
async def database(database_factory: Callable[[], AsyncIterator[str]]) -> AsyncIterator[str]:
    async for url in database_factory():
        yield url


@pytest.fixture(scope="module")
async def own_platform(
    database: str, valkey_server: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningPlatform]:
    """One whose worker leaves monitors to others."""
    settings = {
        "DATABASE_URL": database,
        "REDIS_URL": valkey_server.url.replace("db=0", "db=9"),
        "MAX_MONITORS": "0",
    }
    with run_platform(tmp_path_factory.mktemp("monitors"), settings) as running:
        yield running


@pytest.fixture
def shell(own_platform: RunningPlatform, tmp_path: Path) -> Shell:
    return Shell(own_platform.address, tmp_path)


@pytest.fixture
async def worker(database: str) -> AsyncIterator[Worker]:
    pool = await create_pool(database, 2, name="test-worker")
    yield Worker(pool)
    await pool.close()


async def test_monitors_from_the_command_line(shell: Shell, worker: Worker) -> None:
    assert shell("monitors", "list").stderr == "no monitors\n"
    (made,) = shell.json(
        *("monitors", "add", "-", "--name", "Radio X", "--keep-air", "7d"),
        *("--min-duration", "5", "--silence-after", "1:30", "--proxy", "http://u:pr0xy@8.8.4.4:1"),
        stdin=b"http://dj:hunter2@8.8.8.8/rock?key=s3cret\n\n",
    )
    assert made["url"] == "http://***@8.8.8.8/rock?key=***"
    assert (made["state"], made["config"]["name"]) == ("WAITING", "Radio X")
    config = made["config"]
    assert (config["keep_air_s"], config["min_duration_s"]) == (7 * 86400.0, 5.0)
    assert (config["silence_after_s"], config["options"]["proxy"]) == (90.0, "")
    told = shell("monitors", "add", f"{RADIO}/a", f"{RADIO}/a", "--paused", status=1)
    assert told.stdout.startswith("paused") and "8.8.8.8" in told.stdout
    assert "listens to this source already" in told.stderr
    (refused,) = shell.json("monitors", "add", "http://u:hunter2@127.0.0.1/", status=1)
    assert refused["failure"]["reason"] == "URL_NOT_ALLOWED"
    assert "hunter2" not in str(refused) + told.stderr

    monitor = (await worker.take())["Radio X"]
    assert monitor.config.options.proxy == "http://u:pr0xy@8.8.4.4:1"
    token = worker.tokens["Radio X"]
    await worker.found.upsert(token, detection(monitor.id))
    heard = report(heard_s=3600.0, recognised_s=900.0, level_db=-18.0, audio_time=NOON)
    await worker.monitors.heartbeat({token: heard}, 600.0)
    told = shell("monitors", "list")
    assert told.stdout.splitlines()[1].split()[:3] == ["8.8.8.8", "paused", "0.0"]
    assert "listening" in told.stdout and "A song" in told.stdout and "1 h 00 min" in told.stdout
    (listed,) = shell.json("monitors", "list", "--state", "listening")
    for name in ("radio x", made["id"], made["url"]):
        assert shell.json("monitors", "show", name) == [listed]
    shown = shell("monitors", "show", "Radio X").stdout
    for line in ("1 h 00 min, 25% recognised", "-18 dB", "A song since", "168 h 00 min"):
        assert line in shown

    (changed,) = shell.json("monitors", "update", "Radio X", "--keep-air", "0", "--name", "X")
    assert (changed["config"]["keep_air_s"], changed["config"]["name"]) == (0.0, "X")
    told = await worker.monitors.heartbeat({token: report()}, 600.0)
    assert told[token].config.name == "X"

    (ended,) = shell.json("monitors", "detections", "--monitor", "X")
    assert (ended["title"], ended["ongoing"]) == ("A song", True)
    assert shell("monitors", "pause", "X").stdout.startswith("paused")
    assert await worker.monitors.heartbeat({token: report()}, 600.0) == {}
    (ended,) = shell.json("monitors", "detections", "--monitor", "X", "--since", "2026-11-21")
    assert (ended["ongoing"], ended["monitor_name"]) == (False, "X")
    assert shell.json("monitors", "detections", "--until", "2026-11-21T00:00:00Z") == []
    table = shell("monitors", "detections").stdout
    assert "10.0 s" in table and "50%" in table and "90.0%" in table
    assert shell("monitors", "resume", "X", "8.8.8.8").stdout.count("waiting") == 2

    for name in ("X", "8.8.8.8"):
        assert shell("monitors", "delete", name).stdout == f"deleted {name}\n"
    assert "no monitor is called" in shell("monitors", "show", "X", status=2).stderr
    assert "There is no monitor" in shell("monitors", "pause", made["id"], status=1).stderr


async def test_alerts_and_a_watch(shell: Shell, worker: Worker) -> None:
    assert shell("monitors", "alerts").stderr == "no alerts\n"
    assert shell("monitors", "detections").stderr == "no detections\n"
    shell("monitors", "add", f"{RADIO}/b", "--name", "[Y]")
    monitor = (await worker.take())["[Y]"]
    token = worker.tokens["[Y]"]
    broken = report(MonitorState.RETRYING, failure=OFFLINE, retry_time=NOON, failed_attempts=3)
    await worker.monitors.heartbeat({token: broken}, 600.0)
    told = shell("monitors", "show", "[Y]").stdout
    assert "SOURCE_OFFLINE: Nothing is on the air." in told and "failed in a row 3" in told
    assert "SOURCE_OFFLINE" in shell("monitors", "list").stdout

    begun = datetime.now(UTC)
    one = detection(monitor.id)
    await worker.found.begin_alert(token, AlertKind.LOSS, NOON, "Nothing is on the air.")
    await worker.found.upsert(token, one)
    process = await asyncio.create_subprocess_exec(
        *(PROGRAM, "monitors", "watch", "[Y]"),
        stdout=asyncio.subprocess.PIPE,
        env=shell.environment(PYTHONUNBUFFERED="1"),
    )
    assert process.stdout is not None

    async def line() -> str:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            return (await process.stdout.readline()).decode().rstrip("\n")

    when = NOON.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert await line() == f"{when}  alert   [Y]: loss: Nothing is on the air."
    assert await line() == f"{when}  on air  [Y]: A song at 0:05.0"
    later = dataclasses.replace(one, end_time=NOON + timedelta(seconds=20))
    await worker.found.upsert(token, later)  # how far it has come is not told to people
    await worker.found.end_alert(token, AlertKind.LOSS, NOON)
    assert await line() == f"{when}  over    [Y]: loss"
    await worker.found.upsert(token, dataclasses.replace(later, ongoing=False, covered_s=20.0))
    assert (await line()).endswith("ended   [Y]: A song after 20.0 s, 100% of it heard")
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130

    process = await asyncio.create_subprocess_exec(
        *(PROGRAM, "monitors", "watch", "--json", "--since", begun.isoformat()),
        stdout=asyncio.subprocess.PIPE,
        env=shell.environment(PYTHONUNBUFFERED="1"),
    )
    first, second = json.loads(await line()), json.loads(await line())
    assert (first["event"], first["alert"]["kind"]) == ("alert", "LOSS")
    assert (second["event"], second["detection"]["ongoing"]) == ("detection", False)
    assert first["update_time"] < second["update_time"]
    process.kill()
    await process.wait()

    (alert,) = shell.json("monitors", "alerts", "--monitor", "[Y]")
    assert alert["message"] == "Nothing is on the air."
    assert shell("monitors", "alerts", "--ongoing").stderr == "no alerts\n"
    assert "loss" in shell("monitors", "alerts").stdout
    shell("monitors", "delete", "[Y]")


def test_what_makes_no_sense(shell: Shell) -> None:
    for arguments, told in (
        (("add", f"{RADIO}/a", f"{RADIO}/b", "--name", "N"), "one name"),
        (("add", "-"), "no URL on stdin"),
        (("add", f"{RADIO}/a", "--keep-air", "soon"), "not a length"),
        (("update", "X"), "nothing to change"),
        (("list", "--state", "asleep"), "is not one of"),
        (("detections", "--since", "yesterday"), "is not a time"),
        (("watch", "nobody"), "no monitor is called"),
    ):
        assert told in shell("monitors", *arguments, status=2).stderr
