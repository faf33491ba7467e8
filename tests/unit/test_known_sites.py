"""Recordings of known sites are told by any of their URLs, without network."""

from __future__ import annotations

import pytest

from soundhash_server.sources import (
    media_key,
    of_known_site,
    search_key,
    source_host,
    split_media_key,
    url_key,
)

YOUTUBE = "media:youtube:dQw4w9WgXcQ"
CLIP = "media:twitchclips:FaintLightGullWholeWheat-ab_1"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://www.youtube.com/watch?v=dQw4w9WgXcQ", YOUTUBE),
        ("http://YouTube.com/watch?list=PL1&v=dQw4w9WgXcQ&t=42s#x", YOUTUBE),
        ("https://m.youtube.com/watch?v=dQw4w9WgXcQ&feature=share", YOUTUBE),
        ("https://music.youtube.com/watch?v=dQw4w9WgXcQ", YOUTUBE),
        ("https://www.youtube.com/shorts/dQw4w9WgXcQ?si=abc", YOUTUBE),
        ("https://www.youtube.com/live/dQw4w9WgXcQ", YOUTUBE),
        ("https://www.youtube-nocookie.com/embed/dQw4w9WgXcQ?start=3", YOUTUBE),
        ("https://youtu.be/dQw4w9WgXcQ?si=x", YOUTUBE),
        ("https://clips.twitch.tv/FaintLightGullWholeWheat-ab_1", CLIP),
        ("https://clips.twitch.tv/embed?clip=FaintLightGullWholeWheat-ab_1", CLIP),
        ("https://www.twitch.tv/somebody/clip/FaintLightGullWholeWheat-ab_1?x=1", CLIP),
        ("https://m.twitch.tv/clip/FaintLightGullWholeWheat-ab_1", CLIP),
        ("https://www.twitch.tv/videos/6528877?t=5m10s", "media:twitchvod:v6528877"),
        ("https://www.twitch.tv/riotgames/v/6528877", "media:twitchvod:v6528877"),
        ("https://player.twitch.tv/?video=v6528877", "media:twitchvod:v6528877"),
        ("https://vimeo.com/56015672", "media:vimeo:56015672"),
        ("https://player.vimeo.com/video/56015672?h=abc", "media:vimeo:56015672"),
        ("https://vimeo.com/channels/staffpicks/56015672", "media:vimeo:56015672"),
        ("https://vimeo.com/56015672/0123abcdef", "media:vimeo:56015672"),
        ("https://api.soundcloud.com/tracks/62986583", "media:soundcloud:62986583"),
        (
            "https://www.dailymotion.com/video/x5kesuj_office-party_news",
            "media:dailymotion:x5kesuj",
        ),
        ("https://dai.ly/x5kesuj", "media:dailymotion:x5kesuj"),
        ("https://www.tiktok.com/@some.one/video/674845124?lang=de", "media:tiktok:674845124"),
        ("https://www.instagram.com/p/aye83DjauH/?igsh=x", "media:instagram:aye83DjauH"),
        ("https://instagram.com/someone/reel/aye83DjauH/", "media:instagram:aye83DjauH"),
    ],
)
def test_every_address_of_a_recording_has_its_key(url: str, key: str) -> None:
    assert url_key(url) == key
    assert of_known_site(url)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://soundcloud.com/band/song?in=band/sets/x", "https://m.soundcloud.com/band/song/"),
        ("https://twitter.com/a/status/1234?s=20", "https://x.com/i/web/status/1234"),
        ("https://mobile.twitter.com/a/status/1234/video/2", "https://x.com/b/status/1234/video/2"),
    ],
)
def test_where_only_the_service_knows_the_id_there_is_one_address(one: str, other: str) -> None:
    assert url_key(one) == url_key(other)
    assert url_key(one).startswith("url:https://")


@pytest.mark.parametrize(
    "url",
    [
        "https://www.youtube.com/watch?v=short",
        "https://www.youtube.com/@channel",
        "https://www.youtube.com/playlist?list=PL1",
        "https://www.youtube.com.evil.example/watch?v=dQw4w9WgXcQ",
        "https://notyoutube.com/watch?v=dQw4w9WgXcQ",
        "https://www.youtube.com:8443/watch?v=dQw4w9WgXcQ",
        "https://i.vimeo.com/56015672",
        "https://www.twitch.tv/somebody",
        "https://www.twitch.tv/somebody/clips",
        "https://vimeo.com/channels/staffpicks",
        "https://soundcloud.com/band",
        "https://soundcloud.com/band/sets/album",
        "https://vm.tiktok.com/ZMabc",
        "https://www.instagram.com/someone/",
        "https://example.com/watch?v=dQw4w9WgXcQ",
    ],
)
def test_other_pages_keep_their_url_as_key(url: str) -> None:
    assert url_key(url).startswith("url:")


def test_sites() -> None:
    assert of_known_site("https://www.youtube.com/@channel")
    assert of_known_site("https://vm.tiktok.com/ZMabc")
    assert not of_known_site("https://notyoutube.com/watch?v=dQw4w9WgXcQ")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://www.youtube.com/watch?v=1", "youtube.com"),
        ("https://youtu.be/1", "youtube.com"),
        ("https://music.youtube.com/", "youtube.com"),
        ("https://clips.twitch.tv/x", "twitch.tv"),
        ("https://mobile.twitter.com/a", "x.com"),
        ("https://WWW.Example.com:8443/a", "example.com"),
        ("https://m.example.com/a", "example.com"),
        ("https://www.com/a", "www.com"),
        ("http://127.0.0.1:99/a", "127.0.0.1"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
    ],
)
def test_hosts(url: str, host: str) -> None:
    assert source_host(url) == host


def test_media_keys() -> None:
    assert media_key("Youtube", "x:y") == "media:youtube:x:y"
    assert split_media_key("media:youtube:x:y") == ("youtube", "x:y")
    assert split_media_key("url:http://a/media:b:c") == ("", "")
    with pytest.raises(ValueError, match="needs"):
        media_key("", "x")


def test_a_search_is_its_words() -> None:
    assert search_key("  Some  Artist\tTITLE ") == search_key("some artist title")
