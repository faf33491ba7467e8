"""Channels and consent to the YouTube API, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from tests.feeds import Feed, serving_feed
from tests.integration.test_cli import PROGRAM, Shell
from tests.media import encode
from tests.platforms import RunningPlatform, run_platform
from tests.sounds import tune
from tests.youtube import YouTube, serving_youtube

from soundhash_server.embedded_valkey import Valkey
from soundhash_workers.youtube_auth import load_token
from soundhash_workers.youtube_auth import main as youtube_auth

SONGS = {f"tune{n}.wav": encode(tune(4.0, seed=960 + n)) for n in range(3)}


@pytest.fixture(scope="module")
async def own_platform(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[RunningPlatform]:
    """One that fetches from loopback."""
    async for url in database_factory():
        settings = {
            "DATABASE_URL": url,
            "REDIS_URL": valkey_server.url.replace("db=0", "db=7"),
            "ALLOW_PRIVATE_URLS": "1",
        }
        with run_platform(tmp_path_factory.mktemp("channels"), settings) as running:
            yield running


@pytest.fixture
def shell(own_platform: RunningPlatform, tmp_path: Path) -> Shell:
    return Shell(own_platform.address, tmp_path)


@pytest.fixture
def feed() -> Iterator[Feed]:
    """Served from a thread of its own: commands block this one."""
    import asyncio

    made = Feed({**SONGS, "broken.wav": b"no audio"})
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving_feed(made):
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(20)
    yield made
    stop.set()
    thread.join()


def test_a_channel_from_the_command_line(shell: Shell, feed: Feed) -> None:
    url = feed.url()
    told = shell("channels", "add", url, "--dry-run", "--max-videos", "2")
    assert told.stdout.splitlines() == [
        f"would be {url}: 4 listed: 2 to index, 2 skipped",
        "  new  Title of tune0.wav",
        "  new  Title of tune1.wav",
    ]
    (line,) = shell.json("channels", "add", url, "--wait", "--schedule", "0 4 * * *", status=1)
    assert (line["channel"], line["state"], line["failure"]) == (url, "SUCCEEDED", None)
    counts = line["counts"]
    assert (counts["listed"], counts["indexed"], counts["failed"]) == (4, 3, 1)
    told = shell("channels", "add", url, "--only-process", "--wait")
    assert "4 listed: 3 known, 1 skipped" in told.stdout

    told = shell("jobs", "--watch", line["job_id"])
    assert "4 listed" in told.stdout

    (channel,) = shell.json("channels", "list")
    assert channel["id"] == line["channel_id"]
    assert (channel["title"], channel["schedule"]) == ("A feed", "0 4 * * *")
    assert (channel["listed"], channel["indexed"], channel["failed"]) == (4, 3, 1)
    for name in ("a feed", channel["id"], url):
        assert shell.json("channels", "show", name) == [channel]
    assert "A feed" in shell("channels", "list").stdout
    videos = shell.json("channels", "videos", "A feed")
    assert [one["state"] for one in videos] == ["SUCCEEDED"] * 3 + ["FAILED"]
    assert {one["id"] for one in shell.json("videos", "--channel", "A feed")} == {
        one["video_id"] for one in videos[:3]
    }
    table = shell("channels", "videos", "A feed").stdout
    assert "indexed" in table and "failed" in table
    assert "no schedule" in shell("channels", "schedule", "A feed", "none").stdout
    (found,) = shell.json("channels", "schedule", "A feed", "0 5 * * *")
    assert found["next_run_time"].endswith("05:00:00+00:00")
    assert "cron" in shell("channels", "schedule", "A feed", "nonsense", status=1).stderr
    assert shell.json("channels", "remove", "A feed") == [
        {"channel_id": channel["id"], "removed": True}
    ]
    assert shell("channels", "list").stderr == "no channels\n"
    assert "no channel is called" in shell("channels", "show", "A feed", status=2).stderr


def test_what_cannot_be_added_is_told_and_the_others_go_on(shell: Shell, feed: Feed) -> None:
    told = shell("channels", "add", "nonsense", feed.url("/nothing"), "--wait", status=1)
    assert "This is no channel id" in told.stderr
    assert "HTTP_NOT_FOUND" in told.stderr
    first, second = shell.json("channels", "add", "nonsense", feed.url("/page"), status=1)
    assert (first["channel"], first["failure"]["reason"]) == ("nonsense", "CHANNEL_INVALID")
    assert second["state"] in ("QUEUED", "RUNNING")
    shell("channels", "add", "@a_b", "--dry-run", "--only-process", status=2)
    shell("channels", "add", "@a_b", "--since", "yesterday", status=2)


def test_quota(shell: Shell) -> None:
    (found,) = shell.json("channels", "quota")
    assert (found["daily_units"], found["used_units"], found["configured"]) == (10_000, 0, False)
    assert "0 of 10,000" in shell("channels", "quota").stdout


# ---- consent ----


@pytest.fixture
def google() -> Iterator[YouTube]:
    with serving_youtube() as made:
        yield made


@pytest.fixture
def secrets(google: YouTube, tmp_path: Path) -> Path:
    """Client secrets as the Google Cloud console gives them, but for the addresses."""
    path = tmp_path / "client.json"
    client = {
        "client_id": "client",
        "client_secret": "the-secret",
        "auth_uri": f"{google.base}/auth",
        "token_uri": f"{google.base}/token",
        "redirect_uris": ["http://localhost"],
    }
    path.write_text(json.dumps({"installed": client}))
    return path


def test_consent_in_a_browser(
    google: YouTube, secrets: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = subprocess.Popen(
        [PROGRAM, "auth", "youtube", "--client-secrets", str(secrets), "--no-browser", "--json"],
        # The library wants https, which nothing on loopback has.
        env={
            **os.environ,
            "SOUNDHASH_DATA_DIR": str(data_dir),
            "OAUTHLIB_INSECURE_TRANSPORT": "1",
            "PYTHONUNBUFFERED": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "Open this address" in process.stdout.readline()
    asked = parse_qs(urlsplit(process.stdout.readline().strip()).query)
    assert asked["scope"] == ["https://www.googleapis.com/auth/youtube.readonly"]
    assert (asked["access_type"], asked["client_id"]) == (["offline"], ["client"])
    back = asked["redirect_uri"][0]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", back)
    # What the browser does after consent.
    answer = urlencode({"code": "4/abc", "state": asked["state"][0]})
    with urllib.request.urlopen(f"{back}?{answer}", timeout=20) as page:
        assert b"can be closed" in page.read()
    printed, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    status = json.loads(printed.strip().splitlines()[-1])
    assert (status["token"], status["configured"]) == ("stored", True)
    path = data_dir / "youtube.json"
    assert path.stat().st_mode & 0o777 == 0o600
    token = load_token(path)
    assert (token.token, token.token_uri) == ("access-1", f"{google.base}/token")
    assert "the-secret" not in printed + errors

    assert youtube_auth(["--status", "--data-dir", str(data_dir)]) == 0
    shown = capsys.readouterr().out
    assert "listed by the YouTube Data API" in shown
    assert "the-refresh-token" not in shown


def test_consent_that_cannot_be_asked_for(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nothing.json"
    for content in (None, "nonsense", "{}", '{"web": {}}'):
        if content is not None:
            path.write_text(content)
        assert youtube_auth(["--client-secrets", str(path), "--data-dir", str(data_dir)]) == 1
        told = capsys.readouterr().err
        assert told.startswith("error: ") and "Traceback" not in told
    assert youtube_auth(["--status", "--json", "--data-dir", str(data_dir)]) == 0
    status: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (status["token"], status["configured"]) == ("none", False)


def test_the_client_alone_needs_no_server_package(tmp_path: Path) -> None:
    code = (
        "import sys, soundhash.cli._app;"
        "found = {'soundhash_server', 'soundhash_workers', 'googleapiclient', 'grpc'};"
        "assert not found & set(sys.modules), found & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=60)
