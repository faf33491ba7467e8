"""Identities of sources, and names from outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundhash_server.errors import PlatformError
from soundhash_server.sources import clean_text, title_from_name, url_key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://Example.COM/a", "http://example.com/a"),
        ("http://example.com", "http://example.com/"),
        ("http://example.com:80/a", "http://example.com/a"),
        ("https://example.com:443/a", "https://example.com/a"),
        ("http://example.com/a#t=10", "http://example.com/a"),
        ("http://example.com/x/../a/./b", "http://example.com/a/b"),
        ("http://example.com/%e9", "http://example.com/%E9"),
        ("http://example.com/é", "http://example.com/%C3%A9"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://example.com/a?utm_source=x&id=1", "http://example.com/a?id=1"),
        ("http://example.com/a?fbclid=x", "http://example.com/a"),
    ],
)
def test_the_same_source_has_the_same_key(one: str, other: str) -> None:
    assert url_key(one) == url_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://example.com/a", "https://example.com/a"),
        ("http://example.com/a", "http://example.com/A"),
        ("http://example.com/a", "http://example.com/a/"),
        ("http://example.com/a//b", "http://example.com/a/b"),
        ("http://example.com/a?v=1", "http://example.com/a?v=2"),
        ("http://example.com/a?v=%26x", "http://example.com/a?v=&x"),
        ("http://example.com/a%2Fb", "http://example.com/a/b"),
        ("http://example.com:8080/a", "http://example.com/a"),
    ],
)
def test_other_sources_have_other_keys(one: str, other: str) -> None:
    assert url_key(one) != url_key(other)


def test_a_key_is_not_made_of_what_is_no_url() -> None:
    with pytest.raises(PlatformError):
        url_key("file:///a")


@given(st.text(alphabet="ab/.%2F?&=#", max_size=30))
def test_a_key_is_its_own_key(rest: str) -> None:
    key = url_key("http://example.com/" + rest)
    assert url_key(key.removeprefix("url:")) == key


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("song.mp3", "song"),
        ("A. B. song.tar.gz", "A. B. song.tar"),
        ("folder/song.mp3", "song"),
        ("C:\\music\\song.mp3", "song"),
        ("My%20Song.ogg", "My Song"),
        (".hidden", ".hidden"),
        ("", ""),
        ("/", ""),
    ],
)
def test_a_title_is_the_name_without_its_ending(name: str, title: str) -> None:
    assert title_from_name(name) == title


def test_text_from_outside_is_one_clean_line() -> None:
    assert clean_text("  a\x00b\r\nc\ud800d ") == "a b c d"
    assert len(clean_text("x" * 5000)) == 500
