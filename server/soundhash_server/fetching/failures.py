"""Why ingestion fails: a closed list of reasons, each with what to do about it.

Reasons of the engine (NO_AUDIO_STREAM, ...) and of the platform (URL_NOT_ALLOWED, ...) pass
through with their own remedies; those of fetching and processing stand here.
"""

from __future__ import annotations

import errno
import socket
import ssl
import uuid
from dataclasses import dataclass

import aiohttp
import structlog

from soundhash_engine.errors import EngineError
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.fetching.messages import reason_of_status
from soundhash_server.model import Failure

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reason:
    """transient: whether trying again later can help by itself. remedy: what people can do.
    refusal: the source does not want to be asked any more; counts towards pausing its host.
    """

    transient: bool
    remedy: str
    refusal: bool = False


REASONS: dict[str, Reason] = {
    "NETWORK_ERROR": Reason(True, "Check the URL and the network; the job tries again by itself."),
    "FETCH_STALLED": Reason(True, "The source sends too slowly; the job tries again by itself."),
    "HOST_UNKNOWN": Reason(False, "Correct the URL's host name."),
    "TLS_ERROR": Reason(False, "The source's certificate is not valid; use another address."),
    "TOO_MANY_REDIRECTS": Reason(False, "Use the address that the URL leads to in the end."),
    "HTTP_UNAUTHORIZED": Reason(
        False,
        "The source asks for a login: give the cookies of one (SOUNDHASH_COOKIES or the job's "
        "own), for a live stream its name and password in the URL, or upload the file.",
    ),
    "HTTP_FORBIDDEN": Reason(
        True,
        "The source refuses: wait, give cookies (SOUNDHASH_COOKIES), a proxy (SOUNDHASH_PROXIES) "
        "or another player client, lower SOUNDHASH_MAX_HOST_JOBS, or upload the file.",
        refusal=True,
    ),
    "HTTP_NOT_FOUND": Reason(False, "There is nothing at this URL; correct it."),
    "HTTP_GONE": Reason(False, "The source says that it was removed for good; use another one."),
    "HTTP_TOO_MANY_REQUESTS": Reason(
        True,
        "The source asks for fewer requests: the job waits and tries again; lower "
        "SOUNDHASH_MAX_HOST_JOBS or SOUNDHASH_MAX_DOWNLOADS, give cookies (SOUNDHASH_COOKIES) or "
        "proxies (SOUNDHASH_PROXIES).",
        refusal=True,
    ),
    "HTTP_CLIENT_ERROR": Reason(False, "The source does not accept the request; check the URL."),
    "HTTP_SERVER_ERROR": Reason(True, "The source is out of order; the job tries again."),
    "EMPTY_MEDIA": Reason(False, "The source sends no bytes; use another URL."),
    "PROXY_FAILED": Reason(
        True,
        "Check SOUNDHASH_PROXIES, or the job's own proxy: address, password, and whether it "
        "answers; the job tries again by itself.",
    ),
    "PROXY_NOT_ALLOWED": Reason(
        False,
        "Use a proxy on the public internet (http, https or socks5); one inside the network has to "
        "be named by the operator in SOUNDHASH_PROXIES.",
    ),
    "COOKIES_NOT_FOUND": Reason(
        False,
        "Put a cookies file of this name (Netscape format) into SOUNDHASH_COOKIES_DIR of every "
        "worker, then retry; see docs/ingestion.md.",
    ),
    "COOKIES_INVALID": Reason(
        False,
        "Export the cookies again in Netscape format (its first line is "
        "'# Netscape HTTP Cookie File'), then retry.",
    ),
    "COOKIES_UNREADABLE": Reason(
        False,
        "The worker cannot read the browser's cookies: run it as the user of that browser on the "
        "same machine, or export a cookies file and use SOUNDHASH_COOKIES.",
    ),
    "COOKIES_EXPIRED": Reason(
        False, "The source no longer takes the cookies: log in again, export them anew, then retry."
    ),
    "MEDIA_TOO_LARGE": Reason(
        False,
        "Use a smaller file, or raise the job's max_bytes or the operator's "
        "SOUNDHASH_MAX_UPLOAD_BYTES.",
    ),
    "MEDIA_TOO_LONG": Reason(
        False,
        "Use a shorter recording, or raise the job's max_duration or the operator's "
        "SOUNDHASH_MAX_MEDIA_S.",
    ),
    "DISK_FULL": Reason(True, "Free space on the volume of SOUNDHASH_DATA_DIR."),
    "UPLOAD_GONE": Reason(False, "The uploaded bytes are no longer here; upload the file again."),
    "FOLDER_NOT_ALLOWED": Reason(
        False,
        "Start the platform with `soundhash up --folder DIR`, or add the folder to "
        "SOUNDHASH_FOLDERS of server and workers.",
    ),
    "FOLDER_NOT_FOUND": Reason(
        False, "Check the path, and that its disk is mounted on the workers' machine."
    ),
    "FOLDER_EMPTY": Reason(
        False,
        "Mount its disk. If the folder is empty on purpose, say so with a file .soundhash-empty "
        "in it.",
    ),
    "FILE_GONE": Reason(False, "The file is no longer in its folder; scan the folder again."),
    "FILE_CHANGED": Reason(
        False, "The file has changed since it was scanned; scan the folder when it is at rest."
    ),
    "FILE_UNREADABLE": Reason(
        False, "Let the worker's user read the file (permissions of it and of its folders); retry."
    ),
    "FILE_NOT_ALLOWED": Reason(
        False, "The file is not under SOUNDHASH_FOLDERS of this worker; correct that, then retry."
    ),
    "NO_MEDIA_ON_PAGE": Reason(
        False,
        "Use the address of the media or of its own page; should yt-dlp know the site, update it.",
    ),
    "NOTHING_FOUND": Reason(False, "The search finds nothing; use other words, or a URL."),
    "SEVERAL_MEDIA": Reason(
        False,
        "The page holds several recordings: submit each by itself, or the page as a channel "
        "(`soundhash channels`).",
    ),
    "CHANNEL_NOT_FOUND": Reason(
        False, "The source knows no such channel: check its id, @handle or URL."
    ),
    "CHANNEL_GONE": Reason(False, "The channel was deleted here meanwhile; add it again."),
    "NOT_A_LIST": Reason(
        False,
        "The page is one recording and lists none: ingest it by its URL, or use the address of "
        "the channel, playlist or feed.",
    ),
    "YOUTUBE_AUTH_EXPIRED": Reason(
        False,
        "Run `soundhash auth youtube --client-secrets FILE` on the workers' machine again, or set "
        "SOUNDHASH_YOUTUBE_API_KEY; then retry.",
    ),
    "YOUTUBE_API_REFUSED": Reason(
        False,
        "Check SOUNDHASH_YOUTUBE_API_KEY and that its project has the YouTube Data API v3 "
        "enabled; without a key and a token yt-dlp lists channels.",
    ),
    "QUOTA_EXCEEDED": Reason(
        True,
        "The day's units of the YouTube Data API are used up: the job goes on when they are new "
        "(midnight Pacific time); raise SOUNDHASH_YOUTUBE_DAILY_UNITS if Google grants more.",
    ),
    "LIVE_NOT_SUPPORTED": Reason(
        False,
        "Live streams are followed by monitors, not ingested: set up a monitor for it, or submit "
        "the recording when the stream is over.",
    ),
    "SOURCE_OFFLINE": Reason(
        True,
        "Nothing is on the air there at the moment: monitors try again by themselves. If it never "
        "is, check the address.",
    ),
    "SOURCE_ENDED": Reason(
        False,
        "The live stream is over for good: ingest its recording, or monitor another address.",
    ),
    "SOURCE_STALLED": Reason(
        True,
        "The source is connected and sends nothing that can be heard: monitors connect again by "
        "themselves. If it lasts, look at the source.",
    ),
    "LIVE_FORMAT": Reason(
        False,
        "Use another address of the source: MP3, AAC, Ogg, Opus or FLAC over HTTP, HLS, RTMP or "
        "RTSP, not encrypted.",
    ),
    "NOT_LIVE": Reason(False, "This is a recording: ingest it instead (`soundhash ingest`)."),
    "NOT_YET_AVAILABLE": Reason(
        False, "The recording is not published yet: submit it again when it is."
    ),
    "MEDIA_REMOVED": Reason(False, "The recording was removed; use another source."),
    "MEDIA_PRIVATE": Reason(
        False,
        "The recording is private: give the cookies of an account that may see it "
        "(SOUNDHASH_COOKIES) or upload the file.",
    ),
    "MEMBERS_ONLY": Reason(
        False,
        "The recording is for members or buyers: give the cookies of an account that has it "
        "(SOUNDHASH_COOKIES) or upload the file.",
    ),
    "DRM_PROTECTED": Reason(
        False, "The recording is encrypted and cannot be fetched; use another source of it."
    ),
    "AGE_RESTRICTED": Reason(
        False,
        "The source asks for the listener's age: give the cookies of a grown-up's account "
        "(SOUNDHASH_COOKIES) or upload the file.",
    ),
    "GEO_BLOCKED": Reason(
        False,
        "The source is closed to this country: use a proxy in another one (SOUNDHASH_PROXIES or "
        "the job's own) or upload the file.",
    ),
    "BOT_CHECK": Reason(
        True,
        "The source suspects a robot: give cookies (SOUNDHASH_COOKIES), another proxy or player "
        "client, lower SOUNDHASH_MAX_HOST_JOBS, or wait.",
        refusal=True,
    ),
    "EXTRACTOR_FAILED": Reason(
        True,
        "Update yt-dlp on the workers (pip install -U 'yt-dlp[default]'), and see that Deno or "
        "Node is installed there; if the page plays in a browser, report it to yt-dlp.",
    ),
    "NO_AUDIO_STREAM": Reason(False, "The recording has no sound; use one with an audio track."),
    "DECODE_STALLED": Reason(
        True,
        "The decoder hangs: the job tries again; if that does not help, convert the file to WAV, "
        "FLAC or MP3.",
    ),
    "DECODE_CRASHED": Reason(False, "Convert the file to WAV, FLAC or MP3 and send that."),
    "OUT_OF_MEMORY": Reason(True, "Give the worker more memory or fewer jobs at once."),
    "STORAGE_UNAVAILABLE": Reason(
        True, "Wait; if it lasts, see whether the storage of SOUNDHASH_STORAGE_URL can be reached."
    ),
    "STORAGE_REFUSED": Reason(
        False, "Check the bucket, region and credentials of SOUNDHASH_STORAGE_URL, then retry."
    ),
    "SILENT_AUDIO": Reason(False, "Check that the recording has sound in it."),
    "CLIP_TOO_SHORT": Reason(False, "Use a recording of at least one second."),
    "INTERNAL": Reason(True, "Report this with the id; the worker's log has the details."),
}


class JobError(Exception):
    """An attempt failed for a reason of the catalogue.

    retry_after_s: how long the source asked to be left alone.
    """

    def __init__(self, reason: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        known = REASONS[reason]
        self.failure = Failure(reason, message, known.remedy, known.transient)
        self.retry_after_s = retry_after_s


_TRANSIENT_KINDS = frozenset(
    {ErrorKind.UNAVAILABLE, ErrorKind.ABORTED, ErrorKind.DEADLINE_EXCEEDED, ErrorKind.INTERNAL}
)


def failure_of(error: Exception) -> tuple[Failure, float | None]:
    """The failure that an attempt's error means, and the seconds that the source asked to wait.

    What nobody has foreseen becomes INTERNAL under an id that finds it in the log.
    """
    match error:
        case JobError():
            return error.failure, error.retry_after_s
        case EngineError():
            # The same bytes fail the same way again.
            return Failure(error.reason, error.message, error.remedy, transient=False), None
        case PlatformError():
            transient = error.kind in _TRANSIENT_KINDS
            return (
                Failure(error.reason, error.message, error.remedy, transient),
                error.retry_after_s,
            )
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return JobError("DISK_FULL", "The disk is full.").failure, None
        case MemoryError():
            return JobError("OUT_OF_MEMORY", "The worker's memory is used up.").failure, None
    error_id = uuid.uuid4().hex
    log.error("unforeseen failure", error_id=error_id, exc_info=error)
    return JobError("INTERNAL", f"An unexpected error, id {error_id}.").failure, None


def from_status(status: int, retry_after_s: float | None) -> JobError:
    """The failure behind an HTTP status that is no success."""
    reason = reason_of_status(status)
    return JobError(reason, f"The source answers {status}.", retry_after_s=retry_after_s)


def from_network(error: Exception) -> JobError:
    """The failure behind an aiohttp, socket or TLS error."""
    match error:
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            # Its own text names the proxy's address.
            return JobError("PROXY_FAILED", "The proxy does not answer, or refuses.")
        case aiohttp.TooManyRedirects():
            return JobError("TOO_MANY_REDIRECTS", "The source redirects without end.")
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            return JobError("TLS_ERROR", "The source's certificate is not valid.")
        case aiohttp.ClientConnectorDNSError():
            unknown = getattr(error.os_error, "errno", None) == socket.EAI_NONAME
            return JobError(
                "HOST_UNKNOWN" if unknown else "NETWORK_ERROR",
                "The source's host name does not resolve.",
            )
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return JobError("HTTP_CLIENT_ERROR", "The source leads to what is no http(s) URL.")
        case TimeoutError():
            return JobError("FETCH_STALLED", "The source does not answer in time.")
    return JobError("NETWORK_ERROR", f"The connection failed ({type(error).__name__}).")
