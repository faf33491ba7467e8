"""Addresses of live sources: which are one, and what nobody may see of them."""

from __future__ import annotations

import asyncio

import pytest

from soundhash_server.errors import PlatformError
from soundhash_server.live_urls import host_of, live_key, shown, without_secrets
from soundhash_server.url_guard import check_url, split_url


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("http://radio.example:8000/rock.mp3", "http://radio.example:8000/rock.mp3"),
        ("https://u:p%40ss@radio.example/x", "https://***@radio.example/x"),
        ("http://onlyname@radio.example/", "http://***@radio.example/"),
        ("rtsp://u:p@[2001:db8::1]:8554/cam", "rtsp://***@[2001:db8::1]:8554/cam"),
        (
            "https://a.example/x?token=s3cret&bitrate=128",
            "https://a.example/x?token=***&bitrate=128",
        ),
        ("https://a.example/x?s3cret", "https://a.example/x?***"),
        ("https://a.example/x?k", "https://a.example/x?***"),
        ("https://a.example/x?list=0123456789abcdef0123456789", "https://a.example/x?list=***"),
        ("https://a.example/x#access_token=s3cret", "https://a.example/x"),
        ("rtmp://a.example/app/live_123456_AbCdEfGhIjKlMn", "rtmp://a.example/app/***"),
        (
            "https://a.example/hls/9f86d081884c7d659a2f/index.m3u8",
            "https://a.example/hls/***/index.m3u8",
        ),
        ("http://tv.example/live/bob/hunter2/1234.ts", "http://tv.example/live/***/***/1234.ts"),
        (
            "https://www.youtube.com/channel/UCX6OQ3DkcsbYNE6H8uQQuVA/live",
            "https://www.youtube.com/channel/UCX6OQ3DkcsbYNE6H8uQQuVA/live",
        ),
        (
            "https://www.youtube.com/watch?v=dQw4w9WgXcQ",
            "https://www.youtube.com/watch?v=dQw4w9WgXcQ",
        ),
        ("https://www.twitch.tv/somebody", "https://www.twitch.tv/somebody"),
        (
            "https://a.example/the-very-long-name-of-a-radio-station",
            "https://a.example/the-very-long-name-of-a-radio-station",
        ),
    ],
)
def test_secrets_are_not_shown(url: str, seen: str) -> None:
    assert shown(url) == seen


def test_texts_about_a_source_hold_none_of_its_secrets() -> None:
    url = "https://bob:p%40ss@a.example/live?token=a%2Bb%2Bc&bitrate=128#frag"
    told = without_secrets(
        f"GET {url} failed: 403 for bob:p@ss with token a+b+c (a%2Bb%2Bc) at 128", url
    )
    for secret in ("bob", "p@ss", "p%40ss", "a+b+c", "a%2Bb%2Bc", "frag"):
        assert secret not in told
    assert "https://***@a.example/live?token=***&bitrate=128 failed" in told
    assert "at 128" in told


@pytest.mark.parametrize(
    "urls",
    [
        ("http://A.example:80/x", "http://u:p@a.example/x#y", "HTTP://a.example/./x"),
        ("rtmp://a.example/app/x", "RTMP://b:c@A.EXAMPLE:1935/app/x"),
        ("rtsp://a.example", "rtsp://a.example:554/"),
        (
            "https://www.youtube.com/watch?v=dQw4w9WgXcQ",
            "https://youtu.be/dQw4w9WgXcQ?t=5",
            "https://m.youtube.com/live/dQw4w9WgXcQ",
        ),
        ("https://www.twitch.tv/somebody", "https://m.twitch.tv/somebody"),
    ],
)
def test_one_source_by_many_addresses(urls: tuple[str, ...]) -> None:
    assert len({live_key(url) for url in urls}) == 1


def test_other_sources_are_others() -> None:
    urls = [
        "http://a.example/x",
        "https://a.example/x",
        "http://a.example/x?y=1",
        "http://a.example:8000/x",
        "http://a.example/X",
        "rtmp://a.example/x",
        "rtsp://a.example/x",
        "http://a.example/ä",
    ]
    assert len({live_key(url) for url in urls}) == len(urls)
    assert host_of("rtsp://u:p@A.example:554/x") == "a.example"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "URL_INVALID"),
        ("rtmp://", "URL_INVALID"),
        ("rtmp:///app", "URL_INVALID"),
        ("rtmp://a.example/with space", "URL_INVALID"),
        ("rtmp://a.example\\@b.example/", "URL_INVALID"),
        ("rtmp://a.example:99999/", "URL_INVALID"),
        ("http://a.example/" + "x" * 2048, "URL_INVALID"),
        ("file:///etc/passwd", "URL_NOT_ALLOWED"),
        ("concat:http://a.example/", "URL_NOT_ALLOWED"),
        ("rtmpt://a.example/x", "URL_NOT_ALLOWED"),
    ],
)
def test_what_is_no_address_of_a_live_source(url: str, reason: str) -> None:
    with pytest.raises(PlatformError) as refused:
        split_url(url, live=True)
    assert refused.value.reason == reason


@pytest.mark.parametrize("scheme", ["http", "https", "rtmp", "rtmps", "rtsp", "rtsps"])
def test_private_addresses_are_refused(scheme: str) -> None:
    url = f"{scheme}://u:p@127.0.0.1/x"
    with pytest.raises(PlatformError) as refused:
        asyncio.run(check_url(url, allow_private=False, live=True))
    assert refused.value.reason == "URL_NOT_ALLOWED"
    assert "u:p" not in str(refused.value.message) + str(refused.value.remedy)
    asyncio.run(check_url(url, allow_private=True, live=True))


def test_other_urls_are_as_they_were() -> None:
    for url in ("rtmp://a.example/x", "http://u:p@a.example/"):
        with pytest.raises(PlatformError):
            split_url(url)
