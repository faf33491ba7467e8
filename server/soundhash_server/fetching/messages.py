"""What sources and yt-dlp say, as reasons of the catalogue (`failures.REASONS`).

Imports nothing: the child that runs yt-dlp loads this for every page.
"""

from __future__ import annotations

import re

_STATUSES = {
    401: "HTTP_UNAUTHORIZED",
    402: "MEMBERS_ONLY",
    403: "HTTP_FORBIDDEN",
    404: "HTTP_NOT_FOUND",
    407: "PROXY_FAILED",
    408: "NETWORK_ERROR",
    410: "HTTP_GONE",
    425: "NETWORK_ERROR",
    429: "HTTP_TOO_MANY_REQUESTS",
    451: "GEO_BLOCKED",
}

# yt-dlp tells its failures apart by text only, and much of that text is its sources' own. The
# first that is found counts: what is certain and special stands before what is general.
MESSAGES: tuple[tuple[str, str], ...] = (
    (r"not on the public internet", "URL_NOT_ALLOWED"),
    (r"host name does not resolve", "HOST_UNKNOWN"),
    (r"no space left on device|disk quota exceeded", "DISK_FULL"),
    (r"connect to proxy|tunnel connection failed|proxyerror|socks\d? (proxy )?", "PROXY_FAILED"),
    (r"confirm you.re not a (ro)?bot|captcha|unusual traffic", "BOT_CHECK"),
    (r"rate.?limit|too many requests|try again later\. .*rate", "HTTP_TOO_MANY_REQUESTS"),
    (r"confirm your age|age.(restrict|verif)|inappropriate for some users|nsfw", "AGE_RESTRICTED"),
    (r"members.only|join this channel|supporter-only", "MEMBERS_ONLY"),
    (
        r"(requires?|after|without) (a )?(payment|purchase|subscription|premium)|is paid\b"
        r"|(only (available )?(for|to)|for) (\w+ )?(subscribers|premium|members|vip)"
        r"|need to purchase|not subscribed|purchase is required",
        "MEMBERS_ONLY",
    ),
    (r"\bdrm\b", "DRM_PROTECTED"),
    (
        r"(in|from) your (current )?(country|location|region)|geo.?(restrict|block)"
        r"|blocked in this (country|region)|available in [\w ]+ only",
        "GEO_BLOCKED",
    ),
    (
        r"private video|(video|playlist|vod|track|post|subreddit|recording) is private"
        r"|this .{0,30} is private|private (playlist|show|subreddit)|protected tweet"
        r"|protected by a password|password.protected",
        "MEDIA_PRIVATE",
    ),
    (
        r"will begin|premieres in|premiere will|will start (at|in)|is scheduled for"
        r"|not (yet )?(started|been made available)|not available yet|will be available"
        r"|not yet available|not started yet|not downloadable yet|available shortly"
        r"|is processing|video is being processed",
        "NOT_YET_AVAILABLE",
    ),
    (
        r"\bis live\b|(stream|streamer|user|channel|radio|video|model).{0,20} is (offline|not live)"
        r"|not currently live|currently live|livestream has ended|live (stream )?has ended"
        r"|live stream recording is not available|m3u8 download detected but ffmpeg",
        "LIVE_NOT_SUPPORTED",
    ),
    (
        r"(been|was) (removed|deleted|terminated)|removed by|video (is )?unavailable"
        r"|(no longer|isn.t|is not|in no longer) available|does not exist|is unavailable"
        r"|has expired|most likely expired|offline because of copyright|link is expired"
        r"|content is unreachable|clip not available",
        "MEDIA_REMOVED",
    ),
    (r"requested format is not available|does not contain .*audio", "NO_AUDIO_STREAM"),
    (
        r"unsupported url|no (suitable )?(video|media|audio|stream|playlist|entries|clip)\w*\b"
        r".{0,40}(found|on|in)|no video formats|there is no video|does ?n.t have a video"
        r"|not a video",
        "NO_MEDIA_ON_PAGE",
    ),
    (r"redirect loop|too many redirects", "TOO_MANY_REDIRECTS"),
    (r"http error (\d{3})", ""),
    (
        r"log.?in\b|logged.?in|sign.?in\b|registered users|authenticat|not authorized"
        r"|do not have access|account does not have",
        "HTTP_UNAUTHORIZED",
    ),
    (r"certificate.verify.failed|certificate is not valid", "TLS_ERROR"),
    (r"timed out|timeout", "FETCH_STALLED"),
    (r"name or service not known|nodename nor servname", "HOST_UNKNOWN"),
    (
        r"unable to download|connection|network|resolve|urlopen|transport|incomplete|bytes read"
        r"|more expected|temporarily unavailable|unable to open fragment|content too short",
        "NETWORK_ERROR",
    ),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), reason) for pattern, reason in MESSAGES)

_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_WHO = re.compile(r"^(ERROR: )?(\[[^\]]{1,60}\] )?([A-Za-z0-9_-]{1,64}: )?")
_ADVICE = re.compile(r"[.;,] (please report|Use --|See +https?:|Confirm you are on the latest).*")
_MAX_CHARS = 300


def reason_of_status(status: int) -> str:
    """The reason behind an HTTP status that is no success."""
    return _STATUSES.get(status, "HTTP_SERVER_ERROR" if status >= 500 else "HTTP_CLIENT_ERROR")


def reason_of(text: str) -> str:
    """The reason of the catalogue that an error text of yt-dlp stands for."""
    told = _told(text)
    for pattern, reason in _COMPILED:
        if found := pattern.search(told):
            return reason or reason_of_status(int(found[1]))
    return "EXTRACTOR_FAILED"


def one_line(text: str) -> str:
    """The error for people: without yt-dlp's advice on its own options, and without addresses,
    which may hold secrets."""
    return _URL.sub("(URL)", _ADVICE.sub("", " ".join(text.split()))).removeprefix("ERROR: ")[
        :_MAX_CHARS
    ]


def _told(text: str) -> str:
    # Names of sites, ids and addresses are no part of what is said.
    return _URL.sub("", _WHO.sub("", one_line(text)))
