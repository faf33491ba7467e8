"""Names of channels, told apart without network."""

from __future__ import annotations

import pytest

from soundhash_server.channel_refs import RefKind, parse_channel
from soundhash_server.errors import PlatformError
from soundhash_server.fetching.listing import to_listed

UC = "UC" + "x" * 20 + "-_"
PL = "PL" + "y" * 32


@pytest.mark.parametrize(
    ("text", "kind", "service", "name"),
    [
        (UC, RefKind.CHANNEL, "youtube", UC),
        (f"  {UC} ", RefKind.CHANNEL, "youtube", UC),
        ("UU" + UC[2:], RefKind.CHANNEL, "youtube", UC),
        (f"https://www.youtube.com/channel/{UC}", RefKind.CHANNEL, "youtube", UC),
        (f"http://m.youtube.com/channel/{UC}/videos?view=0", RefKind.CHANNEL, "youtube", UC),
        (f"youtube.com/channel/{UC}/", RefKind.CHANNEL, "youtube", UC),
        ("@SomeBody", RefKind.HANDLE, "youtube", "@somebody"),
        ("https://www.youtube.com/@SomeBody/featured", RefKind.HANDLE, "youtube", "@somebody"),
        ("https://www.youtube.com/%40some.body", RefKind.HANDLE, "youtube", "@some.body"),
        ("@öffentlich", RefKind.HANDLE, "youtube", "@öffentlich"),
        ("https://www.youtube.com/user/OldName", RefKind.USER, "youtube", "user/oldname"),
        (PL, RefKind.PLAYLIST, "youtube", PL),
        (f"https://www.youtube.com/playlist?list={PL}", RefKind.PLAYLIST, "youtube", PL),
        ("https://www.youtube.com/@a.b/shorts", RefKind.PAGE, "youtube.com", None),
        ("https://www.youtube.com/c/Custom", RefKind.PAGE, "youtube.com", None),
        ("https://soundcloud.com/somebody", RefKind.PAGE, "soundcloud.com", None),
        ("https://example.org/feed.xml", RefKind.PAGE, "example.org", None),
        ("example.org/feed.xml", RefKind.PAGE, "example.org", None),
    ],
)
def test_names(text: str, kind: RefKind, service: str, name: str | None) -> None:
    found = parse_channel(text)
    assert (found.kind, found.service) == (kind, service)
    if name is not None:
        assert found.name == name
    # Its own page leads to itself.
    assert parse_channel(found.url) == found


def test_one_page_has_one_name() -> None:
    first = parse_channel("https://Example.org/a/../feed.xml?utm_source=x#top")
    assert first.name == parse_channel("https://example.org/feed.xml").name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "UC123",
        "@",
        "@a b",
        "https://www.youtube.com/",
        "https://www.youtube.com/watch?v=dQw4w9WgXcQ",
        "https://youtu.be/dQw4w9WgXcQ",
        "https://vimeo.com/12345",
        "ftp://example.org/feed.xml",
        "https://user:pass@example.org/feed.xml",
        "/etc/passwd",
        "--option",
        "a" * 3000,
        "https://example.org/" + "a" * 3000,
        "\x00",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(PlatformError) as caught:
        parse_channel(text)
    assert caught.value.kind.value == "INVALID_ARGUMENT"
    assert caught.value.remedy


def test_long_addresses_have_short_names() -> None:
    first, second = (parse_channel(f"https://example.org/{'ä' * 1000}{n}/feed.xml") for n in (1, 2))
    assert first.name != second.name
    assert len(first.name) < 600


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"live_status": "is_live"}, "LIVE_NOT_SUPPORTED"),
        ({"live_status": "is_upcoming"}, "NOT_YET_AVAILABLE"),
        ({"availability": "private"}, "MEDIA_PRIVATE"),
        ({"title": "[Private video]"}, "MEDIA_PRIVATE"),
        ({"title": "[Deleted video]"}, "MEDIA_REMOVED"),
        ({"live_status": "was_live", "availability": "public"}, ""),
    ],
)
def test_entries_that_cannot_be_fetched(entry: dict[str, str], expected: str) -> None:
    found = to_listed({"url": "https://www.youtube.com/watch?v=dQw4w9WgXcQ", **entry})
    assert found is not None and found.skip_reason == expected
    assert (found.service, found.media_id) == ("youtube", "dQw4w9WgXcQ")


def test_hostile_entries() -> None:
    hostile = "a\0b\ud800c\nd"
    found = to_listed(
        {
            "url": "https://example.org/a.mp3",
            "title": hostile,
            "description": hostile,
            "timestamp": 1e300,
            "duration": -5,
        }
    )
    assert found is not None
    assert (found.title, found.description) == ("a b c d", "abc\nd")
    assert (found.publish_time, found.duration_s) == (None, None)
    for url in ("file:///etc/passwd", "javascript:1", "", "https://example.org/" + "ä" * 2000):
        assert to_listed({"url": url}) is None
