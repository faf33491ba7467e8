"""Fingerprints themselves: made, compared, handed out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

from soundhash_engine import (
    PARAMS,
    ClipTooLong,
    ClipTooShort,
    Comparison,
    DecodeError,
    Extractor,
    Fingerprint,
    Segment,
    SilentAudio,
    compare,
    decode_bytes,
    decode_file,
    extract,
    join,
)
from soundhash_server.errors import ErrorKind, PlatformError, not_found
from soundhash_server.model import Page, Video
from soundhash_server.services.cpu import CpuPool
from soundhash_server.services.uploads import Spool
from soundhash_server.store.fingerprints import Fingerprints
from soundhash_server.store.videos import Videos

MAX_COMPUTE_BYTES = 64 << 20
MAX_COMPUTE_S = 3600.0
MAX_ANSWER_BYTES = 32 << 20
SEGMENT_OVERHEAD_BYTES = 128
"""What a segment takes in a message besides its data, at the most."""


@dataclass(frozen=True, slots=True)
class Print:
    """A fingerprint as it is handed out; ``video_id`` is None for audio that is not stored."""

    video_id: UUID | None
    params_digest: str
    duration_s: float
    landmark_count: int
    segment_count: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class StoredSource:
    """The stored fingerprint of a video."""

    video_id: UUID


@dataclass(frozen=True, slots=True)
class GivenSource:
    """A fingerprint that the caller has."""

    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class MediaSource:
    """Media bytes."""

    content: bytes


Source: TypeAlias = StoredSource | GivenSource | MediaSource


class Fingerprinting:
    """Computes and compares fingerprints and hands out stored ones."""

    def __init__(
        self, cpu: CpuPool, spool: Spool, videos: Videos, fingerprints: Fingerprints
    ) -> None:
        self._cpu = cpu
        self._spool = spool
        self._videos = videos
        self._fingerprints = fingerprints

    async def compute(self, chunks: AsyncIterator[bytes]) -> Print:
        """The fingerprint of one media file; nothing of it is kept.

        Raises EngineError for audio that cannot be used, PlatformError.
        """
        async with self._spool.receive(MAX_COMPUTE_BYTES) as receiver:
            async for chunk in chunks:
                if receiver.size_bytes + len(chunk) > MAX_COMPUTE_BYTES:
                    raise ClipTooLong(f"the media is larger than {MAX_COMPUTE_BYTES} bytes")
                await receiver.write(chunk)
            received = await receiver.finish()
            segments = await self._cpu.run(lambda check: _extract_file(received.path, check))
        return _print(None, segments)

    async def compare(self, first: Source, second: Source) -> Comparison:
        """Looks for the second in the first.

        Raises EngineError, PlatformError NOT_FOUND (VIDEO_NOT_FOUND), FAILED_PRECONDITION
        (PARAMS_MISMATCH).
        """
        loaded = [await self._load(source) for source in (first, second)]

        def work(check: Callable[[], None]) -> Comparison:
            check()
            one = _fingerprint(loaded[0])
            check()
            other = _fingerprint(loaded[1])
            check()
            return compare(one, other)

        held_bytes = sum(len(one.content) for one in loaded if isinstance(one, MediaSource))
        return await self._cpu.run(work, held_bytes=held_bytes)

    async def get(self, video_id: UUID, *, full: bool) -> Print:
        """Raises PlatformError NOT_FOUND (VIDEO_NOT_FOUND), RESOURCE_EXHAUSTED
        (FINGERPRINT_TOO_LARGE)."""
        video = await self._videos.get(video_id)
        if video is None:
            raise not_found("video", str(video_id))
        if not full:
            return _basic(video)
        segments = await self._fingerprints.segments(video_id)
        size_bytes = sum(
            len(one.landmarks) + len(one.descriptor) + len(one.vector) + SEGMENT_OVERHEAD_BYTES
            for one in segments
        )
        if size_bytes > MAX_ANSWER_BYTES:
            raise PlatformError(
                ErrorKind.RESOURCE_EXHAUSTED,
                "FINGERPRINT_TOO_LARGE",
                f"The fingerprint takes {size_bytes} bytes; an answer holds {MAX_ANSWER_BYTES}.",
                "Ask for the basic view.",
                metadata={"size_bytes": str(size_bytes), "max_bytes": str(MAX_ANSWER_BYTES)},
            )
        return _print(video_id, segments)

    async def list(self, page_size: int, page_token: str) -> Page[Print]:
        """Stored fingerprints without their segments, newest first."""
        page = await self._fingerprints.list(page_size, page_token)
        return Page(tuple(_basic(video) for video in page.items), page.next_page_token)

    async def _load(self, source: Source) -> GivenSource | MediaSource:
        if not isinstance(source, StoredSource):
            return source
        segments = await self._fingerprints.segments(source.video_id)
        if not segments:
            raise not_found("video", str(source.video_id))
        return GivenSource(tuple(segments))


def _fingerprint(source: GivenSource | MediaSource) -> Fingerprint:
    if isinstance(source, GivenSource):
        return join(source.segments)
    try:
        pcm = decode_bytes(source.content, max_duration_s=MAX_COMPUTE_S)
    except DecodeError as error:
        raise _too_long(error) from error
    segments = extract(pcm)
    _check_usable(segments, pcm.size / PARAMS.sample_rate_hz)
    return join(segments)


def _extract_file(path: Path, check: Callable[[], None]) -> list[Segment]:
    extractor = Extractor()
    segments: list[Segment] = []
    try:
        for pcm in decode_file(path, max_duration_s=MAX_COMPUTE_S):
            check()
            segments += extractor.push(pcm)
    except DecodeError as error:
        raise _too_long(error) from error
    segments += extractor.finish()
    _check_usable(segments, extractor.duration_s)
    return segments


def _check_usable(segments: Sequence[Segment], duration_s: float) -> None:
    if duration_s < PARAMS.min_clip_s:
        raise ClipTooShort(f"the audio has {duration_s:.2f} s")
    if not any(segment.landmark_count for segment in segments):
        raise SilentAudio("nothing stands out in the audio")


def _too_long(error: DecodeError) -> DecodeError | ClipTooLong:
    if error.reason == "MEDIA_TOO_LONG":
        return ClipTooLong(f"the media is longer than {MAX_COMPUTE_S:g} s")
    return error


def _print(video_id: UUID | None, segments: Sequence[Segment]) -> Print:
    return Print(
        video_id=video_id,
        params_digest=segments[0].params_digest if segments else PARAMS.digest,
        duration_s=sum(segment.duration_s for segment in segments),
        landmark_count=sum(segment.landmark_count for segment in segments),
        segment_count=len(segments),
        segments=tuple(segments),
    )


def _basic(video: Video) -> Print:
    return Print(
        video_id=video.id,
        params_digest=video.params_digest,
        duration_s=video.duration_s,
        landmark_count=video.landmark_count,
        segment_count=video.segment_count,
        segments=(),
    )
