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
    (
        r"confirm you.re not a (ro)?bot|captcha|unusual traffic|suspected as a bot|tls fingerprint"
        r"|\bip( address)? is (likely )?(being )?blocked|(blocked|rejected) by server \(",
        "BOT_CHECK",
    ),
    (r"rate.?limit|too many requests", "HTTP_TOO_MANY_REQUESTS"),
    (
        r"confirm your age|age.(restrict|verif)|adult verification|users older than|nsfw"
        r"|inappropriate for some users|sensitive content",
        "AGE_RESTRICTED",
    ),
    (
        r"members.only|join this channel|supporter-only|premium supporters|is paid\b|is not free"
        r"|requires? (a )?(payment|purchase|subscription|premium|\w+ premium)|subscription needed"
        r"|(only (available )?(for|to)|for) (\w+ )?(subscribers|premium|members|vip)"
        r"|(need to|with|\w+) purchase( the| is required|$)|not subscribed|tv providers"
        r"|service provider subscription",
        "MEMBERS_ONLY",
    ),
    (
        r"(in|from) your (current )?(country|location|region)|geo.?(restrict|block)"
        r"|blocked in this (country|region)|available in [\w ]+ only|only licensed to users in"
        r"|only available in [a-z]",
        "GEO_BLOCKED",
    ),
    (r"\bdrm\b", "DRM_PROTECTED"),
    (
        r"private video|(video|playlist|vod|track|post|subreddit|recording) is private"
        r"|this .{0,30} is private|private (playlist|show|subreddit)|protected tweet"
        r"|protected by a pass(word|code)|password.protected",
        "MEDIA_PRIVATE",
    ),
    (
        r"will begin|premieres in|premiere will|will start (at|in)|(is|be) scheduled (for|to)"
        r"|not (yet )?(started|been made available)|not available yet|will be available"
        r"|not yet available|not started yet|not downloadable yet|available shortly"
        r"|is processing|video is being processed|be downloaded yet",
        "NOT_YET_AVAILABLE",
    ),
    (
        r"\bis live\b|(stream|streamer|user|channel|radio|video|model).{0,20} is (offline|not live)"
        r"|not currently live|currently live|live(stream)? has ended|live (stream )?has ended"
        r"|live stream recording is not available|m3u8 download detected but ffmpeg|live dash"
        r"|livestream is now offline|auto-playing vods|neither archive nor live",
        "LIVE_NOT_SUPPORTED",
    ),
    (r"requested format is not available|does not contain .*audio", "NO_AUDIO_STREAM"),
    (
        r"(been|was) (removed|deleted|terminated)|removed by|video (is )?unavailable"
        r"|(no longer|isn.t|is not|in no longer) available|does not exist|is unavailable"
        r"|(?<!token) has expired|most likely expired|offline because of copyright|link is expired"
        r"|content is unreachable|clip not available|no longer exists|replay is disabled"
        r"|there is no archive|^(the )?(track|video|clip|channel|show|lecture|content|broadcast"
        r"|twitter space)( \S+)? not found|^no such (podcast|audition)",
        "MEDIA_REMOVED",
    ),
    (
        r"unsupported url|invalid url|is not a valid url|no video formats|there is no video"
        r"|no (suitable |valid |supported |embedded )?(video|media|audio|stream|playlist|entries"
        r"|clip|source|formats|episodes|songs)\w*\b.{0,40}(found|on|in|available)"
        r"|does ?n.t (have|contain) (a|any) (video|track)|does not contain a video|not a video"
        r"|not a media file|find any video",
        "NO_MEDIA_ON_PAGE",
    ),
    (r"redirect loop|too many redirects", "TOO_MANY_REDIRECTS"),
    (r"http error (\d{3})", ""),
    (
        r"log.?in\b|logged.?in|sign.?in\b|log into|registered users|authenticat|not authorized"
        r"|do not have (access|permission)|account does not have|an account (is|that)|credentials"
        r"|(username|password|login)\b.{0,20}(incorrect|wrong|required|invalid)"
        r"|(incorrect|wrong|invalid) (video )?(username|password)|cookies .{0,40}(needed|required)"
        r"|fresh cookies|refresh your cookies|token has expired",
        "HTTP_UNAUTHORIZED",
    ),
    (r"certificate.verify.failed|certificate is not valid", "TLS_ERROR"),
    (r"timed out|timeout", "FETCH_STALLED"),
    (r"name or service not known|nodename nor servname", "HOST_UNKNOWN"),
    (
        r"unable to download|connection|network|resolve|urlopen|transport|incomplete|bytes read"
        r"|more expected|temporarily unavailable|unable to open fragment|content too short"
        r"|disconnected|error on server-side|file is empty|did not get any data",
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
