"""What live sources say, well and badly: nothing that they send fails in an unforeseen way."""

from __future__ import annotations

import asyncio
import itertools
import struct
from contextlib import suppress
from unittest.mock import create_autospec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.media import encode
from tests.sounds import tune

from soundhash_engine.ogg import OggLink
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live.amf import AmfError, decode
from soundhash_server.fetching.live.amf import encode as amf
from soundhash_server.fetching.live.hls_playlist import from_live_edge, media_playlist, variants_of
from soundhash_server.fetching.live.icy import IcyStream, interval_of
from soundhash_server.fetching.live.pieces import Title
from soundhash_server.fetching.live.playlists import entries_of
from soundhash_server.fetching.live.raw import Raw
from soundhash_server.fetching.live.rtmp_chunks import Chunks
from soundhash_server.fetching.live.rtp import payload_of, unpacker
from soundhash_server.fetching.live.sdp import Track, tracks_of

HERE = "http://radio.example/a/list.m3u8"


def _chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def _block(text: bytes) -> bytes:
    text += bytes(-len(text) % 16)
    return bytes([len(text) // 16]) + text


@given(st.lists(st.integers(0, 10_000), max_size=40))
def test_titles_are_found_however_a_stream_is_cut(cuts: list[int]) -> None:
    audio = bytes(range(1, 101))
    blocks = [
        _block(b"StreamTitle='It's 'this'; that';StreamUrl='http://x';"),
        b"\0",
        _block(b"StreamTitle='caf\xe9\x07';"),
        _block(b"StreamUrl='';"),
        _block(b"StreamTitle='unfinished"),
        _block(b"StreamTitle='';"),
    ]
    data = b"".join(audio + block for block in blocks) + audio
    icy = IcyStream(100)
    pieces = [piece for chunk in _chunked(data, cuts) for piece in icy.push(chunk)]
    titles = [piece.text for piece in pieces if isinstance(piece, Title)]
    assert titles == [
        "It's 'this'; that",
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
        "unfinished",
        "",
    ]
    assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == audio * 7


def test_intervals_that_are_none() -> None:
    assert [interval_of(text) for text in ("", "x", "-1", "1e3", "999999999", "16000")] == [
        *[0] * 5,
        16_000,
    ]
    with pytest.raises(JobError):
        interval_of("1")


@given(st.lists(st.integers(0, 200_000), max_size=30))
@settings(max_examples=25)
def test_ogg_streams_are_parted_however_they_are_cut(cuts: list[int]) -> None:
    first, second = OGG
    link, found, rest = OggLink(), b"", None
    for chunk in _chunked(first + second, cuts):
        if rest is None:
            own, rest = link.push(chunk)
            found += own
        else:
            rest += chunk
    assert found == first
    assert rest == second


OGG = (encode(tune(1.0), "ogg", rate_hz=16_000), encode(tune(1.0), "opus", rate_hz=48_000))


def test_what_is_no_ogg_is_let_through() -> None:
    link = OggLink()
    assert link.push(b"Og") == (b"", None)
    assert link.push(b"le" * 10) == (b"Og" + b"le" * 10, None)
    assert link.push(b"OggS" + bytes(23)) == (b"OggS" + bytes(23), None)
    assert OggLink().finish() == b""


def test_playlists_of_all_kinds() -> None:
    lists = {
        "#EXTM3U\n#EXTINF:-1,A\nhttp://x/1\n\n  rtmp://x/2  \n../b/3\nfile:///etc\nhttp://x/1": [
            "http://x/1",
            "rtmp://x/2",
            "http://radio.example/b/3",
        ],
        "http://x/1\nnot an address\nhttps://x/2": ["http://x/1", "https://x/2"],
        "[playlist]\nNumberOfEntries=2\nFile2 = http://x/2\nfile1=http://x/1\nTitle1=http://no": [
            "http://x/2",
            "http://x/1",
        ],
        "<?xml version='1.0'?><playlist><location> http://x/1?a=1&amp;b=2 </location></playlist>": [
            "http://x/1?a=1&b=2"
        ],
        "<ASX VERSION='3.0'><Entry><Ref HREF = \"http://x/1\" /></Entry></ASX>": ["http://x/1"],
        "<!doctype html><html><a href='http://x/1'>": [],
        "http://[broken/\nhttp://x/1": ["http://x/1"],
        "": [],
    }
    for text, urls in lists.items():
        assert entries_of(text, HERE) == urls, text


SLOW = [
    "<location",
    "<location >" + " " * 500,
    "\n",
    " ",
    "[playlist]\nfile1=",
    "A",
    "A,",
    '"',
    "a=",
]


@pytest.mark.parametrize("text", SLOW)
def test_hostile_text_is_read_in_no_time(text: str) -> None:
    # What takes the square of its length would not end here.
    long = text * ((1 << 20) // len(text))
    for start in ("", "[playlist]\n", "<x>", "#EXTM3U\n#EXT-X-KEY:", "#EXT-X-MEDIA:TYPE=AUDIO,"):
        entries_of(start + long, HERE)
        with suppress(JobError):
            media_playlist(start + long, HERE)
        with suppress(JobError):
            variants_of(start + long, HERE)
    icy = IcyStream(100)
    for _ in range(200):
        icy.push(bytes(100) + _block(b"StreamTitle='" + b"';" * 2000))


LINES = st.sampled_from(
    [
        "#EXTM3U", "#EXTINF:6.006,title", "#EXTINF:", "#EXTINF:nan", "#EXT-X-TARGETDURATION:6.006",
        "#EXT-X-TARGETDURATION:-1", "#EXT-X-MEDIA-SEQUENCE:1e400", "#EXT-X-MEDIA-SEQUENCE:x",
        "#EXT-X-KEY:METHOD", "#EXT-X-KEY:METHOD=AES-128",
        '#EXT-X-KEY:METHOD=AES-128,URI="k",IV=0xzz',
        '#EXT-X-KEY:METHOD=AES-128,URI="k",IV=0x' + "f" * 99, "#EXT-X-KEY:METHOD=NONE",
        '#EXT-X-MAP:URI="m"', "#EXT-X-MAP:", '#EXT-X-MAP:URI="m",BYTERANGE="1@2"',
        "#EXT-X-BYTERANGE:10@5", "#EXT-X-BYTERANGE:10", "#EXT-X-BYTERANGE:x", "#EXT-X-GAP",
        "#EXT-X-DISCONTINUITY", "#EXT-X-PROGRAM-DATE-TIME:2026-13-01", "#EXT-X-ENDLIST", "a.ts",
        "http://[x", "#EXT-X-PART:DURATION=1,URI=\"p\"", "#EXT-X-STREAM-INF:BANDWIDTH=x", "b.m3u8",
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",URI="s"', '#EXT-X-STREAM-INF:AUDIO="a",CODECS="avc1"',
    ]
)  # fmt: skip


@given(st.lists(LINES | st.text(max_size=40), max_size=30))
@settings(max_examples=50)
def test_lists_of_segments_are_read_or_refused(lines: list[str]) -> None:
    text = "\n".join(lines)
    with suppress(JobError):
        variants_of(text, HERE)
    with suppress(JobError):
        playlist = media_playlist(text, HERE)
        assert 0.5 <= playlist.target_s <= 60
        numbers = [segment.number for segment in playlist.segments]
        assert numbers == sorted(set(numbers))
        assert len(from_live_edge(playlist)) <= len(numbers)


def test_a_list_is_read_as_the_standard_has_it() -> None:
    text = """#EXTM3U
#EXT-X-TARGETDURATION:6
#EXT-X-MEDIA-SEQUENCE:41
#EXT-X-MAP:URI="init",BYTERANGE="100@0"
#EXTINF:6.0,Title, with a comma
#EXT-X-BYTERANGE:1000@100
all
#EXTINF:6.0
#EXT-X-BYTERANGE:500
all
#EXT-X-KEY:METHOD=AES-128,URI="key?a=1,b=2",IV=0x0000000000000000000000000000002A
#EXT-X-DISCONTINUITY
#EXTINF:3,
https://other.example/c
#EXT-X-PART:DURATION=1.0,URI="c.1"
"""
    found = media_playlist(text, HERE)
    assert [one.number for one in found.segments] == [41, 42, 43]
    assert (found.segments[1].part.start, found.segments[1].part.size) == (1100, 500)
    assert [one.breaks for one in found.segments] == [False, False, True]
    last = found.segments[2]
    assert last.key is not None and last.header is not None
    assert last.key.url == "http://radio.example/a/key?a=1,b=2"
    assert last.key.iv == (42).to_bytes(16, "big")
    assert last.part.url == "https://other.example/c"
    assert last.header.key is None
    assert not found.ended
    # Of a live stream the latest three times six seconds, or what there is of them.
    assert len(from_live_edge(found)) == 3


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=5))
def test_commands_are_read_as_they_were_written(values: list[object]) -> None:
    assert decode(amf(*values)) == values


@given(st.binary(max_size=200))
def test_commands_that_are_none(data: bytes) -> None:
    with suppress(AmfError):
        decode(data)
    with suppress(AmfError):
        decode(b"\x03\0\1a" * 50 + data)


@given(st.lists(st.binary(max_size=60) | st.sampled_from(
    [b"\x02\0\0\0\0\0\x04\x01\0\0\0\0", b"\x03\0\0\0\0\0\x05\x14\x01\0\0\0",
     b"\x04\xff\xff\xff\0\0\x01\x08\x01\0\0\0", b"\xc4", b"\x44\0\0\x09", b"\x00\x07", bytes(4)]
), max_size=20))  # fmt: skip
async def test_chunks_that_are_none(pieces: list[bytes]) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"".join(pieces))
    reader.feed_eof()
    chunks = Chunks(Raw(reader, create_autospec(asyncio.StreamWriter, instance=True), 1.0))
    with suppress(JobError, EOFError):
        while await chunks.message() is not None:
            pass


def _track(encoding: str, **parameters: str) -> Track:
    return Track("audio", 96, encoding, 16_000, 1, "", parameters)


@given(st.binary(max_size=100), st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=200)
def test_packets_that_are_none(data: bytes, first: int, second: int) -> None:
    packet = bytes([first, second]) + data
    payload_of(packet)
    aac = _track("MPEG4-GENERIC", config="1408", sizelength="13", indexlength="3")
    for track in (aac, _track("OPUS"), _track("PCMU"), _track("MPA"), _track("MP2T")):
        push = unpacker(track)
        push(packet)
        push(struct.pack(">BBHII", 0x80, 96, 1, 1, 1) + data)


@given(st.lists(st.sampled_from(
    ["m=audio 0 RTP/AVP 96", "m=audio", "m=video 0 RTP/AVP 33", "a=rtpmap:96 opus/48000/2",
     "a=rtpmap:96 x/y/z", "a=fmtp:96 a=b;;c", "a=control:*", "a=control:track1", "v=0"]
) | st.text(max_size=30), max_size=12))  # fmt: skip
def test_descriptions_of_all_kinds(lines: list[str]) -> None:
    tracks, _ = tracks_of("\r\n".join(lines))
    for track in tracks:
        with suppress(JobError):
            unpacker(track)


@pytest.mark.parametrize("config", ["", "zz", "ff", "0000", "f8e98000", "1408" * 50])
def test_descriptions_of_aac(config: str) -> None:
    with suppress(JobError):
        unpacker(_track("MPEG4-GENERIC", config=config, sizelength="13", indexlength="3"))
    with pytest.raises(JobError):
        unpacker(_track("MPEG4-GENERIC", config="1408", sizelength="0"))
