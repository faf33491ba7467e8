"""What a job's options and the settings come to together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.ways import (
    Proxy,
    Ways,
    check_options,
    parse_proxy,
    proxies_of,
    ways_of,
)
from soundhash_server.model import FetchOptions
from soundhash_server.settings import Settings, SettingsError


def settings(tmp_path: Path, **more: Any) -> Settings:
    return Settings.from_env({}, data_dir=tmp_path, **more)


def test_without_options_the_settings_hold(tmp_path: Path) -> None:
    plain = ways_of(FetchOptions(), settings(tmp_path))
    assert plain == Ways(max_bytes=8 << 30, max_media_s=24 * 3600.0)
    (tmp_path / "cookies").mkdir()
    (tmp_path / "cookies" / "c.txt").touch()
    given = settings(
        tmp_path,
        cookies="c.txt",
        cookies_from_browser="firefox",
        proxies="http://a:1 socks5://b",
        player_client="tv, web",
        user_agent="Agent/1.0",
        ytdlp_cache_dir="/cache",
        download_bytes_per_s=1000,
    )
    assert ways_of(FetchOptions(), given) == Ways(
        max_bytes=8 << 30,
        max_media_s=24 * 3600.0,
        cookies=tmp_path / "cookies" / "c.txt",
        proxies=(Proxy("http://a:1", trusted=True), Proxy("socks5://b", trusted=True)),
        player_clients=("tv", "web"),
        user_agent="Agent/1.0",
        cache_dir="/cache",
        max_bytes_per_s=1000,
    )


def test_a_jobs_own_options_come_first_within_the_bounds(tmp_path: Path) -> None:
    given = settings(
        tmp_path,
        cookies="c.txt",
        proxies="http://a:1",
        player_client="tv",
        user_agent="Agent/1.0",
        max_upload_bytes=100,
        max_media_s=60.0,
        download_bytes_per_s=1000,
    )
    options = FetchOptions(
        cookies_from_browser="Firefox:work",
        proxy="http://b:2",
        player_client="web",
        user_agent="Agent/2.0",
        max_bytes=50,
        max_duration_s=0.5,
        max_bytes_per_s=2000,
    )
    ways = ways_of(options, given)
    assert (ways.cookies, ways.browser) == (None, ("firefox", "work"))
    assert ways.proxies == (Proxy("http://b:2", trusted=False),)
    assert (ways.player_clients, ways.user_agent) == (("web",), "Agent/2.0")
    assert (ways.max_bytes, ways.max_media_s, ways.max_bytes_per_s) == (50, 0.5, 1000)


def test_cookies_are_files_of_one_folder(tmp_path: Path) -> None:
    (tmp_path / "cookies" / "folder").mkdir(parents=True)
    (tmp_path / "outside.txt").touch()
    for name in ("missing", "folder", "..", "../outside.txt", str(tmp_path / "outside.txt")):
        with pytest.raises(JobError) as caught:
            ways_of(FetchOptions(cookies=name), settings(tmp_path))
        assert caught.value.failure.reason == "COOKIES_NOT_FOUND"
    # As Kubernetes mounts a secret.
    (tmp_path / "cookies" / "linked.txt").symlink_to(tmp_path / "outside.txt")
    assert ways_of(FetchOptions(cookies="linked.txt"), settings(tmp_path)).cookies is not None


@pytest.mark.parametrize(
    ("url", "host", "port", "is_socks"),
    [
        ("http://p.example:3128", "p.example", 3128, False),
        ("HTTPS://me:word@p.example", "p.example", 443, False),
        ("http://p.example", "p.example", 80, False),
        ("socks5h://[::1]:9050", "::1", 9050, True),
        ("socks5://p.example", "p.example", 1080, True),
    ],
)
def test_proxies(url: str, host: str, port: int, is_socks: bool) -> None:
    proxy = parse_proxy(url, trusted=True)
    assert proxy is not None
    assert (proxy.address, proxy.is_socks) == ((host, port), is_socks)
    assert "word" not in repr(proxy)
    assert host not in repr(proxy)
    assert len(proxy.digest) == 64


@pytest.mark.parametrize(
    "url",
    ["", "p:1", "ftp://p", "http://", "http://p:x", "http://p:99999", "http://a b", "http:\\\\p"],
)
def test_no_proxies(url: str) -> None:
    assert parse_proxy(url, trusted=True) is None


def test_a_setting_that_is_no_proxy_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Number 2 of SOUNDHASH_PROXIES") as caught:
        proxies_of(settings(tmp_path, proxies="http://a:1 me:hunter2@host"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        FetchOptions(cookies="../x"),
        FetchOptions(cookies_from_browser="lynx"),
        FetchOptions(cookies_from_browser="chrome:/home/other"),
        FetchOptions(proxy="nonsense"),
        FetchOptions(user_agent="a\nb"),
        FetchOptions(max_duration_s=-1.0),
    ],
)
async def test_options_that_nobody_may_ask_for(options: FetchOptions) -> None:
    with pytest.raises(PlatformError) as caught:
        await check_options(options, False)
    assert caught.value.reason == "FETCH_OPTIONS_INVALID"
    assert len(caught.value.violations) == 1


async def test_a_private_proxy_is_the_operators_to_name() -> None:
    options = FetchOptions(proxy="http://10.0.0.1:3128")
    with pytest.raises(PlatformError) as caught:
        await check_options(options, False)
    assert caught.value.reason == "PROXY_NOT_ALLOWED"
    await check_options(options, True)
    await check_options(FetchOptions(proxy="http://8.8.8.8:3128"), False)
    await check_options(FetchOptions(cookies_from_browser="firefox:default-release"), False)
