"""Twitch clips: what people send for one."""

from __future__ import annotations

import pytest

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.sources import url_key
from soundhash_server.twitch import clip_id_of_key, clip_ids, clip_key, clip_url

ID = "CulturedAmazingKuduDatSheffy-TiZ_-ixAGYR3y2Uy"


@pytest.mark.parametrize(
    "text",
    [
        ID,
        f" {ID}\n",
        f"https://clips.twitch.tv/{ID}",
        f"http://clips.twitch.tv/{ID}?tt_medium=clips&t=3#x",
        f"HTTPS://Clips.Twitch.TV/{ID}",
        f"clips.twitch.tv/{ID}",
        f"https://clips.twitch.tv/embed?clip={ID}&parent=example.org",
        f"https://www.twitch.tv/xqc/clip/{ID}?filter=clips&range=7d",
        f"https://twitch.tv/xqc/clip/{ID}",
        f"https://m.twitch.tv/clip/{ID}",
        f"m.twitch.tv/xqc/clip/{ID}",
    ],
)
def test_ids_and_addresses(text: str) -> None:
    assert clip_ids([text]) == [ID]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "two words",
        "sch\u00f6n",
        "../etc/passwd",
        "a/b",
        "a.b",
        "embed",
        "a" * 201,
        "https://clips.twitch.tv/",
        "https://clips.twitch.tv/a b",
        "https://www.twitch.tv/xqc",
        "https://www.twitch.tv/videos/123",
        f"https://clips.twitch.tv.example.org/{ID}",
        f"https://example.org/?x=https://clips.twitch.tv/{ID}",
        f"https://user:password@clips.twitch.tv/{ID}",
        f"https://clips.twitch.tv:8443/{ID}",
        f"ftp://clips.twitch.tv/{ID}",
        "https://www.youtube.com/watch?v=dQw4w9WgXcQ",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(PlatformError) as failed:
        clip_ids([text])
    assert (failed.value.kind, failed.value.reason) == (
        ErrorKind.INVALID_ARGUMENT,
        "CLIP_ID_INVALID",
    )


def test_every_offender_is_named() -> None:
    with pytest.raises(PlatformError) as failed:
        clip_ids(["no good", ID, "also/bad", "x" * 3000])
    error = failed.value
    assert list(error.violations) == list(error.metadata) == ["clips[0]", "clips[2]", "clips[3]"]
    assert (error.metadata["clips[0]"], error.metadata["clips[2]"]) == ("no good", "also/bad")
    assert all(len(value) <= 60 for value in error.metadata.values())
    assert "'no good', 'also/bad'" in error.message
    assert ID not in error.message


def test_the_same_clip_is_one_in_the_order_of_the_first() -> None:
    assert clip_ids(["B", clip_url("A"), "https://www.twitch.tv/x/clip/B", "A"]) == ["B", "A"]


def test_a_clip_has_the_identity_of_its_address() -> None:
    for url in (clip_url(ID), f"https://www.twitch.tv/xqc/clip/{ID}"):
        assert url_key(url) == clip_key(ID)
    assert clip_id_of_key(clip_key(ID)) == ID
    assert clip_id_of_key("media:youtube:abc") == clip_id_of_key("url:https://x/") == ""
