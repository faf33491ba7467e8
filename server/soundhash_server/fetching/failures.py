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
    "HTTP_UNAUTHORIZED": Reason(False, "The source asks for a login; upload the file instead."),
    "HTTP_FORBIDDEN": Reason(False, "The source refuses; upload the file, or use another URL."),
    "HTTP_NOT_FOUND": Reason(False, "There is nothing at this URL; correct it."),
    "HTTP_GONE": Reason(False, "The source was removed; use another one."),
    "HTTP_TOO_MANY_REQUESTS": Reason(True, "The source asks for fewer requests; wait."),
    "HTTP_CLIENT_ERROR": Reason(False, "The source does not accept the request; check the URL."),
    "HTTP_SERVER_ERROR": Reason(True, "The source is out of order; the job tries again."),
    "EMPTY_MEDIA": Reason(False, "The source sends no bytes; use another URL."),
    "MEDIA_TOO_LARGE": Reason(False, "Use a smaller file, or raise SOUNDHASH_MAX_UPLOAD_BYTES."),
    "MEDIA_TOO_LONG": Reason(False, "Use a shorter recording, or raise SOUNDHASH_MAX_MEDIA_S."),
    "DISK_FULL": Reason(True, "Free space on the volume of SOUNDHASH_DATA_DIR."),
    "UPLOAD_GONE": Reason(False, "The uploaded bytes are no longer here; upload the file again."),
    "NO_MEDIA_ON_PAGE": Reason(False, "Use the address of the media or of its own page."),
    "SEVERAL_MEDIA": Reason(False, "The page holds several recordings; submit each by itself."),
    "LIVE_NOT_SUPPORTED": Reason(False, "Submit the recording when the live stream is over."),
    "MEDIA_REMOVED": Reason(False, "The recording was removed; use another source."),
    "MEDIA_PRIVATE": Reason(False, "The recording is private; upload the file instead."),
    "AGE_RESTRICTED": Reason(False, "The source asks for a login; upload the file instead."),
    "GEO_BLOCKED": Reason(False, "The source is closed to this country; upload the file instead."),
    "BOT_CHECK": Reason(True, "The source suspects a robot; wait, or upload the file instead."),
    "EXTRACTOR_FAILED": Reason(True, "Update yt-dlp (pip install -U 'yt-dlp[default]')."),
    "DECODE_STALLED": Reason(True, "Convert the file to WAV, FLAC or MP3 and send that."),
    "DECODE_CRASHED": Reason(False, "Convert the file to WAV, FLAC or MP3 and send that."),
    "OUT_OF_MEMORY": Reason(True, "Give the worker more memory or fewer jobs at once."),
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
    reasons = {
        401: "HTTP_UNAUTHORIZED",
        403: "HTTP_FORBIDDEN",
        404: "HTTP_NOT_FOUND",
        408: "NETWORK_ERROR",
        410: "HTTP_GONE",
        425: "NETWORK_ERROR",
        429: "HTTP_TOO_MANY_REQUESTS",
        451: "HTTP_FORBIDDEN",
    }
    reason = reasons.get(status, "HTTP_SERVER_ERROR" if status >= 500 else "HTTP_CLIENT_ERROR")
    return JobError(reason, f"The source answers {status}.", retry_after_s=retry_after_s)


def from_network(error: Exception) -> JobError:
    """The failure behind an aiohttp, socket or TLS error."""
    match error:
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
