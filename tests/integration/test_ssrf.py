"""Nobody can make the platform fetch from the network that it runs in."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.loopback import Loopback, serving

from soundhash_server import url_guard
from soundhash_server.errors import PlatformError
from soundhash_server.fetching import http
from soundhash_server.fetching.download import Limits, download
from soundhash_server.fetching.ytdlp import fetch_page

LIMITS = Limits(max_bytes=1 << 20, min_free_disk_bytes=0)


@pytest.fixture(scope="module")
async def web() -> AsyncIterator[Loopback]:
    async with serving(b"private") as loopback:
        yield loopback


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with http.open_session(allow_private=False, read_timeout_s=2.0) as made:
        yield made


async def _refused(session: aiohttp.ClientSession, url: str, folder: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        await download(session, url, folder / "media", LIMITS, lambda done, total: None)
    assert caught.value.reason == "URL_NOT_ALLOWED"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_no_connection_is_made_to_loopback(
    web: Loopback, session: aiohttp.ClientSession, tmp_path: Path, host: str
) -> None:
    before = web.requests.total()
    await _refused(session, web.url("/song.wav").replace("127.0.0.1", host), tmp_path)
    assert web.requests.total() == before


async def test_a_redirect_into_the_network_is_refused(
    web: Loopback,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # To the guard, this one address is now public; where it redirects to is not.
    monkeypatch.setattr(http, "is_public_address", lambda address: address == "127.0.0.1")
    port = web.base.rsplit(":", 1)[1]
    to = f"/redirect?to=http://127.0.0.2:{port}/song.wav"
    await _refused(session, web.url(to), tmp_path)
    await _refused(session, web.url("/redirect?to=http://[::1]:1/"), tmp_path)
    got = await download(
        session, web.url("/song.wav"), tmp_path / "m", LIMITS, lambda done, total: None
    )
    assert got.size_bytes == len(b"private")


async def test_a_name_that_changes_its_mind_after_the_check(
    web: Loopback,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = ["8.8.8.8", "127.0.0.1"]
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = (answers.pop(0), port)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    url = web.url("/song.wav").replace("127.0.0.1", "rebind.test")
    before = web.requests.total()
    await url_guard.check_url(url, False)
    await _refused(session, url, tmp_path)
    assert asked == ["rebind.test", "rebind.test"]
    assert web.requests.total() == before


async def test_pages_are_not_fetched_from_loopback_either(web: Loopback, tmp_path: Path) -> None:
    before = web.requests.total()
    with pytest.raises(PlatformError) as caught:
        await fetch_page(
            web.url("/page"),
            tmp_path,
            LIMITS,
            lambda done, total: None,
            max_media_s=60.0,
            allow_private=False,
        )
    assert caught.value.reason == "URL_NOT_ALLOWED"
    assert web.requests.total() == before


GUARDED = """
import os, socket, subprocess, sys
from soundhash_server.fetching.guard import guard

guard(allow_private=False)
port = int(sys.argv[1])
for family, address in (
    (socket.AF_INET, ("127.0.0.1", port)),
    (socket.AF_INET, ("localhost", port)),
    (socket.AF_INET6, ("::ffff:127.0.0.1", port)),
    (socket.AF_UNIX, "/tmp/any.sock"),
):
    try:
        with socket.socket(family) as made:
            made.connect(address)
    except ConnectionRefusedError as error:
        assert "not on the public internet" in str(error), error
    else:
        sys.exit(f"connected to {address}")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
    try:
        made.sendto(b"x", ("127.0.0.1", port))
    except ConnectionRefusedError:
        pass
    else:
        sys.exit("sent")
for start in (lambda: subprocess.run(["curl", "http://127.0.0.1"]), lambda: os.system("true")):
    try:
        start()
    except PermissionError:
        continue
    sys.exit("started a program")
"""


def test_the_guard_of_the_yt_dlp_process_holds_below_all_libraries() -> None:
    accepted: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        port = server.getsockname()[1]

        def accept() -> None:
            connection, address = server.accept()
            with connection:
                accepted.append(address)

        listener = threading.Thread(target=accept)
        listener.start()
        done = subprocess.run(
            [sys.executable, "-c", GUARDED, str(port)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        # The listener does listen: this connection, and no other, arrives.
        with socket.create_connection(("127.0.0.1", port)) as own:
            listener.join()
            assert accepted == [own.getsockname()]
    assert (done.returncode, done.stderr) == (0, "")
