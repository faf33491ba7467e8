"""Names of channels, told apart without network."""

from __future__ import annotations

import pytest

from soundhash_server.channel_refs import RefKind, parse_channel
from soundhash_server.errors import PlatformError

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
