"""Where does this clip come from: decode, match, name the videos, remember the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from soundhash_engine import ClipTooLong, DecodeError, decode_bytes
from soundhash_engine.index import Snapshot
from soundhash_engine.matcher import Match, MatchOptions, MatchResult, match
from soundhash_engine.postings import Missing
from soundhash_engine.types import Pcm
from soundhash_server.errors import not_found
from soundhash_server.model import MatchRecord, Page, ScoreParts, Video
from soundhash_server.services.cpu import CpuPool
from soundhash_server.services.links import deep_link
from soundhash_server.services.on_air import at_most, joined, on_air
from soundhash_server.store.matches import Matches
from soundhash_server.store.videos import Videos

DEFAULT_TOP = 5


class Searchable(Protocol):
    """The match index, as far as matching needs it."""

    def snapshot(self) -> Snapshot:
        """The index as it is now."""


class Keeping(Protocol):
    """Who keeps what later explains matches."""

    def keep(
        self, query_id: UUID, pcm: Pcm, matches: Sequence[Match], *, begin_s: float = 0.0
    ) -> None:
        """Takes a clip from its second ``begin_s`` on; at once, the work is done later."""


@dataclass(frozen=True, slots=True)
class ClipAnswer:
    """The answer to one clip; matches best first, and what of the index did not answer."""

    query_id: UUID
    matches: tuple[MatchRecord, ...]
    clip_duration_s: float
    elapsed_s: float
    missing: tuple[Missing, ...]


class Matching:
    """Matches whole clips and keeps the answers."""

    def __init__(
        self,
        cpu: CpuPool,
        index: Searchable,
        videos: Videos,
        matches: Matches,
        keeper: Keeping,
        *,
        max_clip_s: float,
    ) -> None:
        self._cpu = cpu
        self._index = index
        self._videos = videos
        self._matches = matches
        self._keeper = keeper
        self._max_clip_s = max_clip_s

    async def match_clip(self, content: bytes, options: MatchOptions) -> ClipAnswer:
        """Finds the videos that a clip is from.

        content: media bytes in any container that FFmpeg reads. Raises EngineError for clips
        that cannot be used, PlatformError RESOURCE_EXHAUSTED (SERVER_BUSY).
        """
        begun = time.perf_counter()

        def decode() -> Pcm:
            try:
                return decode_bytes(content, max_duration_s=self._max_clip_s)
            except DecodeError as error:
                if error.reason == "MEDIA_TOO_LONG":
                    raise ClipTooLong(f"the clip is longer than {self._max_clip_s:g} s") from error
                raise

        return await self._answer(decode, options, begun, held_bytes=len(content))

    async def match_audio(self, pcm: Pcm, options: MatchOptions) -> ClipAnswer:
        """As `match_clip` for audio that is decoded already, mono 8 kHz."""
        return await self._answer(
            lambda: pcm, options, time.perf_counter(), held_bytes=int(pcm.nbytes)
        )

    async def _answer(
        self, decode: Callable[[], Pcm], options: MatchOptions, begun: float, *, held_bytes: int
    ) -> ClipAnswer:
        def work(check: Callable[[], None]) -> tuple[MatchResult, Pcm]:
            check()
            pcm = decode()
            check()
            return match(self._index.snapshot(), pcm, options), pcm

        result, pcm = await self._cpu.run(work, held_bytes=held_bytes)
        records = at_most(joined(await name_matches(self._videos, result.matches)), options.top)
        elapsed_s = time.perf_counter() - begun
        query_id, stored = await self._matches.record(
            "CLIP", result.clip_duration_s, elapsed_s, records
        )
        self._keeper.keep(query_id, pcm, result.matches)
        return ClipAnswer(
            query_id, tuple(stored), result.clip_duration_s, elapsed_s, result.missing
        )

    async def get(self, match_id: UUID) -> MatchRecord:
        """Raises PlatformError NOT_FOUND (MATCH_NOT_FOUND)."""
        found = await self._matches.get(match_id)
        if found is None:
            raise not_found("match", str(match_id))
        return found

    async def list(
        self, page_size: int, page_token: str, video_id: UUID | None, query_id: UUID | None
    ) -> Page[MatchRecord]:
        """Past matches, newest first."""
        return await self._matches.list(page_size, page_token, video_id=video_id, query_id=query_id)


def match_options(top: int, min_confidence: float, max_clip_s: float) -> MatchOptions:
    """Options as asked for; ``min_confidence`` can only raise the engine's own threshold."""
    default = MatchOptions()
    return MatchOptions(
        top=top or DEFAULT_TOP,
        min_confidence=max(min_confidence, default.min_confidence),
        max_clip_s=max_clip_s,
    )


async def name_matches(videos: Videos, found: Sequence[Match]) -> list[MatchRecord]:
    """Matches with what the catalogue says about their videos; without those that were deleted."""
    by_id = await videos.by_recording_ids([one.recording_id for one in found]) if found else {}
    return [to_record(one, by_id[one.recording_id]) for one in found if one.recording_id in by_id]


def to_record(found: Match, video: Video) -> MatchRecord:
    """A match as it is answered, not stored yet."""
    return MatchRecord(
        id=None,
        query_id=None,
        video_id=video.id,
        title=video.title,
        source_url=deep_link(video.source_url, found.video_start_s) if video.source_url else "",
        external_id=video.external_id,
        clip_start_s=found.clip_start_s,
        clip_end_s=found.clip_end_s,
        video_start_s=found.video_start_s,
        video_end_s=found.video_end_s,
        speed=found.speed,
        pitch=found.pitch,
        confidence=found.confidence,
        parts=score_parts(found),
        also_at_s=tuple(found.also_at_s),
        create_time=datetime.now(UTC),
        on_air=on_air(video, found),
    )


def score_parts(found: Match) -> ScoreParts:
    """The evidence behind a match under its public names."""
    return ScoreParts(
        score=found.score,
        landmark_votes=found.parts.lz,
        landmark_contrast=found.parts.uz,
        rectified_correlation=found.parts.rp,
        correlation=found.parts.correlation,
        distance=found.parts.distance,
        overlap=found.parts.overlap,
        coverage=found.parts.coverage,
    )
