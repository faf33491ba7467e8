"""The YouTube Data API as a client sees it: what it says, what it costs, and how it refuses."""

from __future__ import annotations

import dataclasses
import json
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.youtube import CHANNEL_ID, YouTube, serving_youtube, video

from soundhash_server.channel_refs import parse_channel
from soundhash_server.fetching.failures import JobError
from soundhash_server.settings import Settings
from soundhash_server.store.pool import Pool
from soundhash_server.store.quota import QuotaUses, day_of
from soundhash_workers.youtube_api import PageGoneError, YouTubeApi, duration_s
from soundhash_workers.youtube_auth import TokenError, load_token, save_token, status


@pytest.fixture
def youtube() -> Iterator[YouTube]:
    with serving_youtube(YouTube(videos=[video(n) for n in range(120, 0, -1)])) as made:
        yield made


class Calls:
    """A client with a fresh quota."""

    def __init__(self, youtube: YouTube, pool: Pool, data_dir: Path, **settings: Any) -> None:
        values = {"youtube_api_url": youtube.base, "youtube_api_key": "the-key", **settings}
        self.settings = Settings.from_env({}, data_dir=data_dir, **values)
        self.quota = QuotaUses(pool)
        self.api = YouTubeApi(self.settings, self.quota)

    async def failure(self, call: Any) -> JobError:
        with pytest.raises(JobError) as caught:
            await call
        text = f"{caught.value.failure} {caught.value!r} {caught.value.__context__!r}"
        for secret in ("the-key", "the-secret", "the-refresh-token"):
            assert secret not in str(caught.value.failure), text
        return caught.value


@pytest.fixture
def calls(youtube: YouTube, pool: Pool, data_dir: Path) -> Iterator[Calls]:
    made = Calls(youtube, pool, data_dir)
    with closing(made.api):
        yield made


@pytest.mark.parametrize(
    "name",
    [
        CHANNEL_ID,
        "@Somebody",
        f"https://www.youtube.com/channel/{CHANNEL_ID}/videos",
        "youtube.com/user/OldUser",
    ],
)
async def test_a_channel_is_found_by_every_name(calls: Calls, name: str) -> None:
    facts = await calls.api.describe(parse_channel(name))
    assert facts.service_id == CHANNEL_ID
    assert (facts.title, facts.description) == ("Somebody", "About it")
    assert facts.thumbnail_url == "https://example.org/l.jpg"
    assert facts.uploads_id == "UU" + CHANNEL_ID[2:]
    assert (await calls.quota.today()).used_units == 1


async def test_a_list_is_paged_to_its_end(calls: Calls, youtube: YouTube) -> None:
    youtube.videos[0] = dataclasses.replace(youtube.videos[0], live="live", duration="P0D")
    youtube.videos[1] = dataclasses.replace(youtube.videos[1], privacy="private")
    youtube.videos[2] = dataclasses.replace(youtube.videos[2], live="upcoming")
    youtube.videos[3] = dataclasses.replace(youtube.videos[3], privacy="gone")
    uploads = "UU" + CHANNEL_ID[2:]
    found, mark = [], ""
    for _ in range(3):
        page = await calls.api.page(uploads, mark)
        assert page.quota_units == 2
        found += page.videos
        mark = page.next_page
    assert mark == ""
    assert [one.media_id for one in found] == [one.id for one in youtube.videos]
    assert [one.skip_reason for one in found[:5]] == [
        "LIVE_NOT_SUPPORTED",
        "MEDIA_PRIVATE",
        "NOT_YET_AVAILABLE",
        "MEDIA_REMOVED",
        "",
    ]
    assert found[0].duration_s is None
    one = found[4]
    assert (one.service, one.duration_s, one.title) == ("youtube", 185.0, "Video 116")
    assert one.description == "About Video 116"
    assert one.publish_time == datetime(2000, 5, 5, 12, tzinfo=UTC)
    assert one.url == f"https://www.youtube.com/watch?v={one.media_id}"
    assert (await calls.quota.today()).used_units == 6 == len(youtube.calls)


async def test_playlists_and_what_is_missing(calls: Calls, youtube: YouTube) -> None:
    youtube.playlists["PL" + "b" * 20] = [video(7)]
    ref = parse_channel("https://www.youtube.com/playlist?list=PL" + "b" * 20)
    facts = await calls.api.describe(ref)
    assert (facts.title, facts.uploads_id) == ("A playlist", ref.name)
    (one,) = (await calls.api.page(facts.uploads_id, "")).videos
    assert one.media_id == "video000007"
    for missing in ("UC" + "z" * 22, "@nobody", "PL" + "z" * 20):
        error = await calls.failure(calls.api.describe(parse_channel(missing)))
        assert error.failure.reason == "CHANNEL_NOT_FOUND"
    error = await calls.failure(calls.api.page("PL" + "z" * 20, ""))
    assert error.failure.reason == "CHANNEL_NOT_FOUND"
    with pytest.raises(PageGoneError):
        await calls.api.page("UU" + CHANNEL_ID[2:], "nonsense")


@pytest.mark.parametrize(
    ("status_code", "api_reason", "reason", "transient"),
    [
        (403, "quotaExceeded", "QUOTA_EXCEEDED", True),
        (403, "rateLimitExceeded", "HTTP_TOO_MANY_REQUESTS", True),
        (429, "rateLimitExceeded", "HTTP_TOO_MANY_REQUESTS", True),
        (400, "keyInvalid", "YOUTUBE_API_REFUSED", False),
        (403, "accessNotConfigured", "YOUTUBE_API_REFUSED", False),
        (503, "backendError", "HTTP_SERVER_ERROR", True),
    ],
)
async def test_refusals_have_reasons(
    calls: Calls,
    youtube: YouTube,
    status_code: int,
    api_reason: str,
    reason: str,
    transient: bool,
) -> None:
    youtube.failures = [(status_code, api_reason)]
    error = await calls.failure(calls.api.videos(["video000001"]))
    assert (error.failure.reason, error.failure.transient) == (reason, transient)
    assert error.failure.remedy


async def test_quota_is_refused_before_it_is_exceeded(
    youtube: YouTube, pool: Pool, data_dir: Path
) -> None:
    calls = Calls(youtube, pool, data_dir, youtube_daily_units=2)
    with closing(calls.api):
        await calls.api.videos(["video000001"])
        await calls.api.videos(["video000001"])
        error = await calls.failure(calls.api.videos(["video000001"]))
    assert error.failure.reason == "QUOTA_EXCEEDED"
    assert error.retry_after_s is not None and 0 < error.retry_after_s <= 25 * 3600
    assert len(youtube.calls) == 2
    today = await calls.quota.today()
    assert today.used_units == 2
    assert abs((today.reset_time - datetime.now(UTC)).total_seconds() - error.retry_after_s) < 60


async def test_the_apis_own_word_on_quota_holds_for_all(calls: Calls, youtube: YouTube) -> None:
    youtube.failures = [(403, "quotaExceeded")]
    await calls.failure(calls.api.videos(["video000001"]))
    error = await calls.failure(calls.api.videos(["video000001"]))
    assert error.failure.reason == "QUOTA_EXCEEDED"
    assert len(youtube.calls) == 1
    assert (await calls.quota.today()).used_units == calls.settings.youtube_daily_units


def test_the_apis_day_ends_at_midnight_in_los_angeles() -> None:
    day, end = day_of(datetime(2026, 7, 1, 6, 59, tzinfo=UTC))
    assert (str(day), end) == ("2026-06-30", datetime(2026, 7, 1, 7, tzinfo=UTC))
    day, end = day_of(datetime(2026, 1, 15, 8, 0, tzinfo=UTC))
    assert (str(day), end) == ("2026-01-15", datetime(2026, 1, 16, 8, tzinfo=UTC))
    # The day on which clocks are put back has 25 hours.
    day, end = day_of(datetime(2026, 11, 1, 7, 0, tzinfo=UTC))
    assert (str(day), end) == ("2026-11-01", datetime(2026, 11, 2, 8, tzinfo=UTC))


async def test_nobody_there(pool: Pool, data_dir: Path) -> None:
    calls = Calls(YouTube(base="http://127.0.0.1:9"), pool, data_dir)
    with closing(calls.api):
        error = await calls.failure(calls.api.videos(["video000001"]))
    assert (error.failure.reason, error.failure.transient) == ("NETWORK_ERROR", True)


# ---- OAuth ----


@pytest.fixture
def oauth(youtube: YouTube, pool: Pool, data_dir: Path) -> Iterator[Calls]:
    made = Calls(youtube, pool, data_dir, youtube_api_key="")
    assert not made.api.configured
    made.settings.youtube_token_path.write_text(youtube.token_file())
    assert made.api.configured
    with closing(made.api):
        yield made


async def test_a_token_is_refreshed_and_written_back(oauth: Calls, youtube: YouTube) -> None:
    path = oauth.settings.youtube_token_path
    assert list(await oauth.api.videos(["video000001"])) == ["video000001"]
    assert youtube.refreshed == 1
    stored = json.loads(path.read_text())
    assert (stored["token"], stored["refresh_token"]) == ("access-1", "the-refresh-token")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    await oauth.api.videos(["video000001"])
    assert youtube.refreshed == 1
    # One that is revoked before its time: 401, then a fresh one.
    youtube.tokens.clear()
    await oauth.api.videos(["video000001"])
    assert youtube.refreshed == 2
    assert json.loads(path.read_text())["token"] == "access-2"


async def test_a_refused_refresh_says_so(oauth: Calls, youtube: YouTube) -> None:
    youtube.refuse_refresh = True
    error = await oauth.failure(oauth.api.videos(["video000001"]))
    assert (error.failure.reason, error.failure.transient) == ("YOUTUBE_AUTH_EXPIRED", False)
    assert "soundhash auth youtube" in error.failure.remedy
    # Consent given again is seen at once, without a restart.
    youtube.refuse_refresh = False
    oauth.settings.youtube_token_path.write_text(youtube.token_file(token="other"))
    assert await oauth.api.videos(["video000001"])


async def test_a_damaged_token_is_no_crash(oauth: Calls) -> None:
    path = oauth.settings.youtube_token_path
    for content in ("", "[]", "{}", "\x00", '{"refresh_token": "x"}'):
        path.write_text(content)
        with pytest.raises(TokenError):
            load_token(path)
        error = await oauth.failure(oauth.api.videos(["video000001"]))
        assert error.failure.reason == "YOUTUBE_AUTH_EXPIRED"
    assert status(oauth.settings)["token"] == "unusable"
    assert status(oauth.settings)["configured"] is False


def test_status_shows_no_secret(youtube: YouTube, data_dir: Path) -> None:
    settings = Settings.from_env({}, data_dir=data_dir)
    assert status(settings)["token"] == "none"
    settings.youtube_token_path.write_text(youtube.token_file())
    save_token(settings.youtube_token_path, load_token(settings.youtube_token_path))
    found = status(settings)
    assert (found["token"], found["configured"]) == ("stored", True)
    assert not any(word in json.dumps(found) for word in ("the-secret", "the-refresh-token"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PT3M5S", 185.0),
        ("PT1H", 3600.0),
        ("P1DT2H3M4S", 93784.0),
        ("P0D", 0.0),
        ("", 0.0),
        ("3:05", 0.0),
    ],
)
def test_durations(text: str, expected: float) -> None:
    assert duration_s(text) == expected
