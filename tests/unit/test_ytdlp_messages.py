"""What yt-dlp and its sources say is understood; the texts are those of the installed version."""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path

import pytest
import yt_dlp

from soundhash_server.fetching.failures import REASONS
from soundhash_server.fetching.messages import one_line, reason_of

ROOT = Path(yt_dlp.__file__).parent
_RAISED = re.compile(
    r"(?:ExtractorError|raise_login_required|raise_geo_restricted|raise_no_formats|UserNotLive"
    r"|report_error)\(\s*f?([\"'])(.{8,300}?)\1",
    re.DOTALL,
)


@functools.cache
def texts() -> tuple[str, ...]:
    """All that yt-dlp's own source raises, in which X is what is filled in."""
    files = [*ROOT.glob("extractor/**/*.py"), *ROOT.glob("downloader/*.py")]
    found = (raised[1] for path in files for raised in _RAISED.findall(path.read_text()))
    return tuple(re.sub(r"\{[^}]*\}", "X", text) for text in found)


# Texts of the source itself: each is in it, word for word.
OWN = {
    "This video is only available for registered users": "HTTP_UNAUTHORIZED",
    "This video is not available from your location due to geo restriction": "GEO_BLOCKED",
    "Private video. Login if you have permissions to watch": "MEDIA_PRIVATE",
    "You are rate-limited. Try again later.": "HTTP_TOO_MANY_REQUESTS",
    "This video is DRM protected": "DRM_PROTECTED",
    "Your IP address is blocked from accessing this post": "BOT_CHECK",
    "Login is required to access age-restricted content": "AGE_RESTRICTED",
    "This VOD is for subscribers only": "MEMBERS_ONLY",
    "This livestream has not yet started": "NOT_YET_AVAILABLE",
    "This video is not available yet. Release date: ": "NOT_YET_AVAILABLE",
    "Streamer is not live": "LIVE_NOT_SUPPORTED",
    "m3u8 download detected but ffmpeg could not be found. Please install": "LIVE_NOT_SUPPORTED",
    "Video was deleted": "MEDIA_REMOVED",
    "The VOD does not exist": "MEDIA_REMOVED",
    "This livestream has ended": "LIVE_NOT_SUPPORTED",
    "No video could be found in this tweet": "NO_MEDIA_ON_PAGE",
    "Post does not contain a video or audio track": "NO_AUDIO_STREAM",
    "This video is only available in Sweden": "GEO_BLOCKED",
}

# What YouTube and the libraries below yt-dlp add.
OF_OTHERS = {
    "[youtube] dQw4w9WgXcQ: Sign in to confirm you’re not a bot. Use --cookies-from-browser or "
    "--cookies for the authentication.": "BOT_CHECK",
    "[youtube] x: Sign in to confirm your age. This video may be inappropriate for some users. Use "
    "--cookies": "AGE_RESTRICTED",
    "[youtube] x: Private video. Sign in if you've been granted access to this video": (
        "MEDIA_PRIVATE"
    ),
    "[youtube] x: Video unavailable. This video is private": "MEDIA_PRIVATE",
    "[youtube] x: Video unavailable. This video has been removed by the uploader": "MEDIA_REMOVED",
    "[youtube] x: This video is no longer available because the YouTube account associated with "
    "this video has been terminated.": "MEDIA_REMOVED",
    "[youtube] x: Video unavailable": "MEDIA_REMOVED",
    "[youtube] x: Video unavailable. The uploader has not made this video available in your "
    "country": "GEO_BLOCKED",
    "[youtube] x: Video unavailable. This video contains content from SME, who has blocked it in "
    "your country on copyright grounds": "GEO_BLOCKED",
    "[youtube] x: Join this channel to get access to members-only content like this video": (
        "MEMBERS_ONLY"
    ),
    "[youtube] x: This live event will begin in 3 hours.": "NOT_YET_AVAILABLE",
    "[youtube] x: Premieres in 2 hours": "NOT_YET_AVAILABLE",
    "[youtube] x: This live stream recording is not available.": "LIVE_NOT_SUPPORTED",
    "[youtube] x: This content isn't available, try again later. The current session has been "
    "rate-limited by YouTube for up to an hour.": "HTTP_TOO_MANY_REQUESTS",
    "[youtube] x: Requested format is not available. Use --list-formats for a list": (
        "NO_AUDIO_STREAM"
    ),
    "[twitch:stream] x: The channel is not currently live": "LIVE_NOT_SUPPORTED",
    "Unsupported URL: https://captcha.example/private/drm": "NO_MEDIA_ON_PAGE",
    "[generic] private: Unable to download webpage: HTTP Error 404: Not Found (caused by "
    "<HTTPError 404: Not Found>)": "HTTP_NOT_FOUND",
    "[generic] x: Unable to download webpage: HTTP Error 402: Payment Required": "MEMBERS_ONLY",
    "HTTP Error 410: Gone": "HTTP_GONE",
    "HTTP Error 301: Moved (redirect loop detected)": "TOO_MANY_REDIRECTS",
    "unable to download video data: HTTP Error 403: Forbidden": "HTTP_FORBIDDEN",
    "HTTP Error 503: Service Unavailable": "HTTP_SERVER_ERROR",
    "HTTP Error 418: I'm a teapot": "HTTP_CLIENT_ERROR",
    "('Unable to connect to proxy', NewConnectionError('refused'))": "PROXY_FAILED",
    "Tunnel connection failed: 407 Proxy Authentication Required": "PROXY_FAILED",
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed": "TLS_ERROR",
    "Unable to download webpage: The read operation timed out": "FETCH_STALLED",
    "Unable to download webpage: [Errno 104] Connection reset by peer": "NETWORK_ERROR",
    "unable to write data: [Errno 28] No space left on device": "DISK_FULL",
    "IncompleteRead(5 bytes read, 3 more expected)": "NETWORK_ERROR",
    "something nobody has seen": "EXTRACTOR_FAILED",
}


@pytest.mark.parametrize(("text", "reason"), OWN.items())
def test_texts_of_yt_dlp_itself(text: str, reason: str) -> None:
    assert any(text in own for own in texts()), "the installed yt-dlp says this no more"
    assert reason_of(f"ERROR: [SomeSite] some-id: {text}") == reason


@pytest.mark.parametrize(("text", "reason"), OF_OTHERS.items())
def test_texts_of_others(text: str, reason: str) -> None:
    assert reason_of(text) == reason


def test_what_the_source_can_say_as_a_whole() -> None:
    assert len(texts()) > 500
    told = [(text.lower(), reason_of(text)) for text in texts()]
    assert {reason for _, reason in told} <= REASONS.keys()
    # What has a plain meaning is never taken for something that passes, or for nothing.
    meanings = {
        r"\bdrm\b": {"DRM_PROTECTED", "GEO_BLOCKED"},
        r"\bgeo": {"GEO_BLOCKED"},
        r"captcha": {"BOT_CHECK"},
        r"rate.limit": {"HTTP_TOO_MANY_REQUESTS"},
        r"subscri(be|ption)": {"MEMBERS_ONLY", "HTTP_UNAUTHORIZED", "LIVE_NOT_SUPPORTED"},
        r"need to log in": {"HTTP_UNAUTHORIZED"},
        r"no longer available": {"MEDIA_REMOVED"},
        r"is private": {"MEDIA_PRIVATE"},
    }
    for pattern, reasons in meanings.items():
        found = {text: reason for text, reason in told if re.search(pattern, text)}
        assert found, pattern
        assert set(found.values()) <= reasons, (pattern, found)
    counts = Counter(reason for _, reason in told)
    # The rest is yt-dlp not finding its way through a page: that is what the reason says.
    assert counts["EXTRACTOR_FAILED"] < 0.65 * len(told)


def test_what_people_are_shown() -> None:
    text = (
        "ERROR: [youtube] x: Sign in to confirm you’re not a bot. Use --cookies-from-browser or "
        "--cookies for the authentication. See  https://github.com/yt-dlp/yt-dlp/wiki/FAQ"
    )
    assert one_line(text) == "[youtube] x: Sign in to confirm you’re not a bot"
    assert one_line("Unsupported URL: http://me:secret@host/x?token=1") == "Unsupported URL: (URL)"
    assert one_line("failed; please report this issue on  https://github.com") == "failed"
    assert "\n" not in one_line("a\nb" * 1000)
    assert len(one_line("a" * 5000)) <= 300
