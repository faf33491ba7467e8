"""What is kept of a video in object storage, and under which keys.

    clips/{id}.{ext}             media of a Twitch clip as fetched
    media/{id}.{ext}             media of everything else as fetched
    audio/{id}.wav               16 kHz mono 16 bit
    audio/{id}/chunk_000.wav ... the same in pieces, of what is longer than a piece
    thumbnails/{id}.{ext}

``id`` is the clip's id for a Twitch clip, and the video's UUID for everything else.
"""

from __future__ import annotations

import enum

from soundhash_server.settings import SettingsError


class Keep(enum.Enum):
    """A kind of thing that can be kept."""

    MEDIA = "media"
    AUDIO = "audio"
    THUMBNAIL = "thumbnail"


def parse_keep(text: str) -> frozenset[Keep]:
    """What SOUNDHASH_KEEP names, with spaces or commas between. Raises SettingsError."""
    words = text.lower().replace(",", " ").split()
    try:
        return frozenset(Keep(word) for word in words)
    except ValueError:
        known = ", ".join(kind.value for kind in Keep)
        raise SettingsError(f"SOUNDHASH_KEEP is {text!r}; it must name some of: {known}.") from None


def media_key(name: str, ending: str, *, is_clip: bool) -> str:
    return f"{'clips' if is_clip else 'media'}/{name}.{ending}"


def audio_key(name: str) -> str:
    return f"audio/{name}.wav"


def chunk_key(name: str, number: int) -> str:
    return f"audio/{name}/chunk_{number:03}.wav"


def thumbnail_key(name: str, ending: str) -> str:
    return f"thumbnails/{name}.{ending}"


# FFmpeg's names of formats, the ending that people know, and the media type.
_CONTAINERS: tuple[tuple[str, str, str], ...] = (
    ("mp4", "mp4", "video/mp4"),
    ("webm", "webm", "video/webm"),
    ("matroska", "mkv", "video/x-matroska"),
    ("mp3", "mp3", "audio/mpeg"),
    ("ogg", "ogg", "audio/ogg"),
    ("flac", "flac", "audio/flac"),
    ("wav", "wav", "audio/wav"),
    ("w64", "w64", "audio/wav"),
    ("aac", "aac", "audio/aac"),
    ("mpegts", "ts", "video/mp2t"),
    ("flv", "flv", "video/x-flv"),
    ("avi", "avi", "video/x-msvideo"),
    ("asf", "wma", "audio/x-ms-wma"),
    ("aiff", "aiff", "audio/aiff"),
    ("caf", "caf", "audio/x-caf"),
)
_ENDINGS = {"m4a": "audio/mp4", "m4b": "audio/mp4", "opus": "audio/ogg", "weba": "audio/webm"}
_SAME_CONTAINER = {"m4a": "mp4", "m4b": "mp4", "opus": "ogg", "weba": "webm", "mkv": "matroska"}


def ending_of(container: str, suffix: str) -> tuple[str, str]:
    """The ending and the media type of media.

    container: FFmpeg's name of its format ("mov,mp4,m4a,3gp,3g2,mj2"). suffix: what its file's
    name says (".m4a"), which is believed where the format does not contradict.
    """
    names = container.split(",")
    given = suffix.lower().lstrip(".")
    known = {name: (ending, kind) for name, ending, kind in _CONTAINERS}
    if given in _ENDINGS and _SAME_CONTAINER[given] in names:
        return given, _ENDINGS[given]
    if given in known and (given in names or _SAME_CONTAINER.get(given) in names):
        return known[given]
    for name, ending, kind in _CONTAINERS:
        if name in names:
            return ending, kind
    return "bin", "application/octet-stream"


def sniff_image(head: bytes) -> tuple[str, str] | None:
    """The ending and the media type of an image by its first bytes: JPEG, PNG or WebP."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg", "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png", "image/png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp", "image/webp"
    return None
