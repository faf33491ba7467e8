"""HTTP Live Streaming: rolling lists, keys, breaks, segments that are not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import pytest
from tests.air import Air, Page, serving_air
from tests.air_hls import Rolling, cut
from tests.listening import Heard, hear, make_sources
from tests.sounds import tune

from soundhash_server.errors import PlatformError
from soundhash_server.fetching import http
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live import Audio, LiveSources
from soundhash_server.model import FetchOptions

PCM = tune(10.0, 5)
TS = cut(PCM)
MP4 = cut(PCM, fragmented=True, prefix="m")
# Of a recording in so many segments: the list is asked for twice, half a second apart.
FROM_EDGE = PCM[8000:]
FAST = {"window": 4, "step": 4, "target_s": 1.0}


@pytest.fixture(scope="module")
async def air() -> AsyncIterator[Air]:
    async with serving_air() as serving:
        yield serving


@pytest.fixture(scope="module")
async def sources() -> AsyncIterator[LiveSources]:
    async with make_sources(stall_s=1.0) as made:
        yield made


async def _fails(sources: LiveSources, url: str, reason: str, heard: Heard | None = None) -> None:
    with pytest.raises((JobError, PlatformError)) as caught:
        await hear(sources, url, into=heard)
    error = caught.value
    assert (error.failure.reason if isinstance(error, JobError) else error.reason) == reason


async def test_what_rolls_is_heard_from_its_edge_on(air: Air, sources: LiveSources) -> None:
    secret = cut(PCM, encrypted=True, prefix="s")
    assert "#EXT-X-KEY" in secret.tags[0][0]
    rolls = {
        "ts": Rolling(**FAST).add(TS),
        "mp4": Rolling(**FAST).add(MP4),
        "secret": Rolling(**FAST, first_number=7).add(secret),
        "clock": Rolling(window=6, speed=2.0).add(TS),
    }
    rolls["numbered"] = Rolling(**FAST, first_number=2**33).add(TS)
    rolls["numbered"].encrypt()
    urls = {name: roll.put(air, f"/{name}") for name, roll in rolls.items()}
    found = await asyncio.gather(*(hear(sources, url) for url in urls.values()))
    for name, heard in zip(rolls, found, strict=True):
        assert heard.sounds_like(PCM[24_000:] if name == "clock" else FROM_EDGE), name
        # Nothing is fetched twice.
        asked = rolls[name].asked
        assert max(asked[file] for file in rolls[name].files) == 1, name


async def test_a_recording_is_heard_from_its_beginning_without_waiting(
    air: Air, sources: LiveSources
) -> None:
    url = Rolling(window=100).add(MP4).put(air, "/whole")
    assert (await hear(sources, url)).sounds_like(PCM)
    # The same, all in one file.
    ranges = b"".join(MP4.files[name] for name in MP4.names)
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", '#EXT-X-MAP:URI="m-init.mp4"']
    for name, duration_s in zip(MP4.names, MP4.durations, strict=True):
        lines += [f"#EXTINF:{duration_s},", f"#EXT-X-BYTERANGE:{len(MP4.files[name])}", "one.m4s"]
    air.pages["/ranges/list"] = Page("\n".join([*lines, "#EXT-X-ENDLIST"]).encode())
    air.pages["/ranges/m-init.mp4"] = Page(MP4.files["m-init.mp4"])
    # A server that does not know ranges sends all of it each time.
    air.pages["/ranges/one.m4s"] = Page(ranges)
    assert (await hear(sources, air.url("/ranges/list"))).sounds_like(PCM)


async def test_breaks_and_what_is_missing(air: Air, sources: LiveSources) -> None:
    other = tune(6.0, 7)
    mixed = Rolling(window=100).add(TS)
    mixed.add(cut(other, fragmented=True, prefix="o", rate_hz=44_100), breaks=True)
    heard = await hear(sources, mixed.put(air, "/mixed"))
    assert heard.duration_s == pytest.approx(16.0, abs=0.3)
    assert Heard(heard.pcm[: PCM.size]).sounds_like(PCM)
    assert Heard(heard.pcm[-other.size :]).sounds_like(other)

    # One that fails once is asked for again; one that does not come is left out.
    patchy = Rolling(window=100).add(MP4)
    patchy.broken = {MP4.names[2]: 1, MP4.names[5]: 99}
    dead = Rolling(window=100).add(TS)
    dead.broken = dict.fromkeys(TS.names[2:], 99)
    ended = Heard()
    heard, _ = await asyncio.gather(
        hear(sources, patchy.put(air, "/patchy")),
        _fails(sources, dead.put(air, "/dead"), "HTTP_SERVER_ERROR", ended),
    )
    assert heard.duration_s == pytest.approx(9.0, abs=0.2)
    assert Heard(heard.pcm[: 5 * 8000]).sounds_like(PCM[: 5 * 8000])
    assert Heard(heard.pcm[-3 * 8000 :]).sounds_like(PCM[-3 * 8000 :], missing_s=0.5)
    assert ended.duration_s == pytest.approx(2.0, abs=0.2)


async def test_a_list_that_stands_still_and_one_that_begins_anew(
    air: Air, sources: LiveSources
) -> None:
    still = Rolling(**FAST, ended=False).add(TS)
    anew = Rolling(window=4, step=1, ended=False, first_number=500).add(TS)
    heard = Heard()

    async def begin_anew() -> None:
        while not anew.asked[TS.names[3]]:
            await asyncio.sleep(0.01)
        # The encoder was started again: its numbers begin at 0, and other sound comes.
        anew.first_number, anew.segments, anew.ended = 0, [], True
        again = cut(tune(4.0, 9), prefix="n")
        anew.add(again).put(air, "/anew")

    await asyncio.gather(
        _fails(sources, still.put(air, "/still"), "SOURCE_STALLED", heard),
        begin_anew(),
        hear(sources, anew.put(air, "/anew"), into=(both := Heard())),
    )
    assert heard.sounds_like(FROM_EDGE)
    assert Heard(both.pcm[-3 * 8000 :]).sounds_like(tune(4.0, 9)[-3 * 8000 :])


async def test_sound_alone_is_chosen_where_there_is_such_a_variant(
    air: Air, sources: LiveSources
) -> None:
    url = Rolling(window=100).add(TS).put(air, "/sound")
    film = '#EXT-X-STREAM-INF:BANDWIDTH=300000,CODECS="avc1.4d,mp4a.40.2",RESOLUTION=256x144'
    masters = {
        "by codec": [
            film,
            "/nothing",
            '#EXT-X-STREAM-INF:BANDWIDTH=900000,CODECS="mp4a.40.2"',
            url,
        ],
        "by group": [
            f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="g",NAME="b",URI="{url}",DEFAULT=YES',
            '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="g",NAME="a",URI="/nothing"',
            f'{film},AUDIO="g"',
            "/nothing",
        ],
        "the next one": [film, "/nothing", film.replace("300", "400"), url],
        "not without sound": [film.replace(",mp4a.40.2", ""), "/nothing", film, url],
    }
    for name, lines in masters.items():
        air.pages["/master.m3u8"] = Page("\n".join(["#EXTM3U", *lines]).encode())
        assert (await hear(sources, air.url("/master.m3u8"))).sounds_like(PCM), name


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('#EXT-X-KEY:METHOD=SAMPLE-AES,URI="skd://x",KEYFORMAT="com.apple"', "DRM_PROTECTED"),
        ('#EXT-X-KEY:METHOD=AES-128,URI="/master.m3u8"', "LIVE_FORMAT"),
        ('#EXT-X-KEY:METHOD=AES-128,URI="/no-key"', "SOURCE_OFFLINE"),
        ("#EXT-X-BYTERANGE:x@y", "LIVE_FORMAT"),
        ('#EXT-X-DEFINE:NAME="a",VALUE="b"\n#{$a}', "LIVE_FORMAT"),
        ('#EXT-X-MAP:URI="/no-map"', "SOURCE_OFFLINE"),
        ("#EXT-X-GAP", "EMPTY_MEDIA"),
    ],
)
async def test_what_is_refused(air: Air, sources: LiveSources, line: str, reason: str) -> None:
    body = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{line}\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n"
    air.pages["/refused/list.m3u8"] = Page(body.replace("#EXTINF", f"{line}\n#EXTINF").encode())
    air.pages["/refused/a.ts"] = Page(TS.files[TS.names[0]])
    air.pages["/master.m3u8"] = Page(b"#EXTM3U this is no key")
    heard = Heard()
    with pytest.raises(JobError) as caught:
        await hear(sources, air.url("/refused/list.m3u8"), into=heard)
    assert caught.value.failure.reason == reason
    assert heard.duration_s == 0


async def test_segments_keys_and_lists_inside_the_network_are_refused(
    air: Air, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "is_public_address", lambda address: address == "127.0.0.1")
    other = air.base.replace("127.0.0.1", "127.0.0.2")
    url = Rolling(window=100).add(TS).put(air, "/public")
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n"
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="{other}/key"\n'
    lists = {
        "segment": f"{head}#EXTINF:1,\n{other}/a.ts\n#EXT-X-ENDLIST\n",
        "key": f"{head}{key}#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n",
        "map": f'{head}#EXT-X-MAP:URI="{other}/m"\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n',
        "variant": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{other}/list.m3u8\n",
    }
    async with make_sources(stall_s=2.0, allow_private_urls=False) as guarded:
        for name, text in lists.items():
            air.pages[f"/{name}/list.m3u8"] = Page(text.encode())
            air.redirect(f"/{name}/a.ts", f"{other}/a.ts")
            await _fails(guarded, air.url(f"/{name}/list.m3u8"), "URL_NOT_ALLOWED")
        air.pages["/moved/list.m3u8"] = Page(f"{head}#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n".encode())
        air.redirect("/moved/a.ts", f"{other}/a.ts")
        await _fails(guarded, air.url("/moved/list.m3u8"), "URL_NOT_ALLOWED")
        for scheme in ("file:///etc/passwd", "rtmp://127.0.0.1/x", "gopher://127.0.0.1:1/"):
            air.pages["/odd/list.m3u8"] = Page(
                f"{head}#EXTINF:1,\n{scheme}\n#EXT-X-ENDLIST\n".encode()
            )
            with pytest.raises(JobError):
                await hear(guarded, air.url("/odd/list.m3u8"))
        assert (await hear(guarded, url)).sounds_like(PCM)


async def test_a_long_stream_of_fragmented_mp4_goes_on_where_its_decoder_begins_anew(
    air: Air, sources: LiveSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    from soundhash_server.fetching.live import hls

    monkeypatch.setattr(hls, "_RENEW_SEGMENTS", 4)
    roll = Rolling(window=100).add(MP4)
    heard = await hear(sources, roll.put(air, "/renewed"))
    assert roll.asked["m-init.mp4"] == 3
    assert heard.sounds_like(PCM)


async def test_only_what_is_read_is_fetched(air: Air, sources: LiveSources) -> None:
    long = cut(np.tile(PCM, 12), prefix="l", segment_s=2.0)
    roll = Rolling(window=1000).add(long)
    async with sources.open(roll.put(air, "/long"), FetchOptions()) as events, aclosing(events):
        assert isinstance(await anext(events), Audio)
        await asyncio.sleep(0.3)
        assert sum(roll.asked[name] for name in long.names) < len(long.names)
