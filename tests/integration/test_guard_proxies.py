"""A proxy inside the network opens nothing else of it to the child that runs yt-dlp."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading

GUARDED = """
import http.client, socket, sys
import requests
from soundhash_server.fetching.ytdlp_base import guard
from yt_dlp.networking.common import _REQUEST_HANDLERS
from yt_dlp.socks import ProxyType, sockssocket

port = int(sys.argv[1])
proxy = {"url": f"http://127.0.0.1:{port}", "address": ["127.0.0.1", port], "trusted": True}
guard({"allow_private": False, "proxy": proxy})
assert set(_REQUEST_HANDLERS) == {"Requests", "Urllib"}, set(_REQUEST_HANDLERS)

def refused(what, ask):
    try:
        ask()
    except (OSError, requests.RequestException) as error:
        assert "not on the public internet" in repr(error) or "does not resolve" in repr(error), (
            what, error)
    else:
        sys.exit(f"{what} was asked for")

socket.create_connection(("127.0.0.1", port)).close()
for address in (("127.0.0.1", port + 1), ("127.0.0.2", port), ("::1", port)):
    refused(address, lambda: socket.create_connection(address))

through = {"http": proxy["url"], "https": proxy["url"]}
for url in ("http://127.0.0.1/", f"http://127.0.0.1:{port}/", "http://localhost/x",
            "https://10.0.0.1/", "http://[::1]/", "https://169.254.169.254/latest",
            "http://nowhere.invalid/"):
    refused(url, lambda: requests.get(url, proxies=through, timeout=5))

def tunnel():
    made = http.client.HTTPSConnection("127.0.0.1", port, timeout=5)
    made.set_tunnel("192.168.0.1", 443)
    made.request("GET", "/")

refused("a tunnel", tunnel)

def socks(host):
    made = sockssocket()
    made.settimeout(5)
    made.setproxy(ProxyType.SOCKS5, "127.0.0.1", port)
    made.connect((host, 80))

for host in ("127.0.0.1", "localhost", "10.1.2.3", "nowhere.invalid"):
    refused(f"socks {host}", lambda: socks(host))
"""


def test_only_the_proxy_is_reached_and_only_for_public_hosts() -> None:
    heard: list[bytes] = []
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)

        def listen() -> None:
            while not stopped.is_set():
                with contextlib.suppress(TimeoutError, ConnectionError):
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(5)
                        heard.append(connection.recv(1000))

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            done = subprocess.run(
                [sys.executable, "-c", GUARDED, str(server.getsockname()[1])],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            stopped.set()
            listener.join()
    assert (done.returncode, done.stderr) == (0, "")
    # Connections there were, and nobody was asked for through any.
    assert set(heard) == {b""}
