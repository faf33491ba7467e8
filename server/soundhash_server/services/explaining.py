"""Why a match is a match: from what was kept of the clip, or from the clip itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from soundhash_engine import ClipTooLong, DecodeError, decode_bytes
from soundhash_engine.clip_parts import decode_part, explain_parts
from soundhash_engine.errors import CorruptFingerprint, ParamsMismatch
from soundhash_engine.explaining import explain
from soundhash_engine.explanation import Explanation
from soundhash_engine.fingerprint import join
from soundhash_engine.index import Index, Snapshot
from soundhash_engine.matcher import Match, MatchOptions, match, thresholds
from soundhash_engine.matcher import ScoreParts as EngineParts
from soundhash_engine.params import PARAMS
from soundhash_engine.score import confidence
from soundhash_engine.types import Pcm, Segment
from soundhash_server.errors import ErrorKind, PlatformError, not_found
from soundhash_server.model import MatchRecord, Video
from soundhash_server.services.clip_keeping import ClipKeeper
from soundhash_server.services.cpu import CpuPool
from soundhash_server.services.matching import Searchable, to_record
from soundhash_server.store.clip_parts import ClipParts
from soundhash_server.store.fingerprints import Fingerprints
from soundhash_server.store.matches import Matches
from soundhash_server.store.videos import Videos

SLACK_S = 1.0
"""A clip that is sent again may be so much shorter than it was: other containers, other padding."""

DESCRIPTIONS = {
    "pair votes": "pairs of peaks agree on the place",
    "landmark energy": "the clip sounds where the video has peaks",
    "contrast met": "the video sounds where the clip has peaks",
    "patch against shifted": "the spectrograms fit here, not shifted",
    "whitened patch": "their fine structure correlates",
    "coinciding landmarks": "peaks lie on one another",
    "unchanged": "neither speed nor pitch changed",
    "bias": "what any place starts with",
}
"""The terms of the score for people."""


@dataclass(frozen=True, slots=True)
class Explained:
    """An explanation with the names of what it speaks of.

    match: not stored (without an id) when it was found for the explanation. videos: by
    recording id, the match's and those of the runners-up; one that is gone is left out.
    match_score: from which on a catalogue of ``hours`` answers. from_kept: made without the clip.
    """

    match: MatchRecord
    why: Explanation
    videos: dict[int, Video]
    match_score: float
    hours: float
    from_kept: bool


@dataclass(frozen=True, slots=True)
class _Told:
    """What a thread has found out."""

    found: Match
    why: Explanation
    snapshot: Snapshot


class Explaining:
    """Explains matches; stores nothing."""

    def __init__(
        self,
        cpu: CpuPool,
        index: Searchable,
        videos: Videos,
        matches: Matches,
        fingerprints: Fingerprints,
        parts: ClipParts,
        keeper: ClipKeeper,
        *,
        max_clip_s: float,
    ) -> None:
        self._cpu = cpu
        self._index = index
        self._videos = videos
        self._matches = matches
        self._fingerprints = fingerprints
        self._parts = parts
        self._keeper = keeper
        self._max_clip_s = max_clip_s

    async def explain_match(self, match_id: UUID, content: bytes) -> Explained:
        """Why this match was answered; ``content``: its clip again, or nothing.

        Raises PlatformError NOT_FOUND (MATCH_NOT_FOUND, VIDEO_NOT_FOUND), FAILED_PRECONDITION
        (CLIP_NEEDED, CLIP_DIFFERS), RESOURCE_EXHAUSTED (SERVER_BUSY); EngineError for a clip
        that cannot be used.
        """
        record = await self._matches.get(match_id)
        if record is None:
            raise not_found("match", str(match_id))
        video = await self._videos.get(record.video_id)
        if video is None:
            raise _video_gone(record.video_id)
        found = _to_match(record, video)
        if content:
            told = await self._run(lambda: self._from_clip(found, self._decode(content)), content)
        else:
            blobs = await self._kept(record)
            told = await self._run(lambda: self._from_parts(found, blobs), content)
        if told is None:
            raise _video_gone(record.video_id)
        return await self._named(told, record, from_kept=not content)

    async def explain_clip(self, content: bytes, video_id: UUID | None) -> Explained:
        """Why the best match of a clip is one; with ``video_id`` its best place in that video,
        even if it would not be answered.

        Raises PlatformError NOT_FOUND (NOTHING_TO_EXPLAIN, VIDEO_NOT_FOUND), RESOURCE_EXHAUSTED
        (SERVER_BUSY); EngineError for a clip that cannot be used.
        """
        only: list[Segment] | None = None
        recording_id = 0
        if video_id is not None:
            video = await self._videos.get(video_id)
            if video is None:
                raise not_found("video", str(video_id))
            only, recording_id = await self._fingerprints.segments(video_id), video.recording_id
        told = await self._run(
            lambda: self._search(self._decode(content), recording_id, only), content
        )
        if told is None:
            raise _nothing(video_id)
        return await self._named(told, None, from_kept=False)

    async def _kept(self, record: MatchRecord) -> list[bytes]:
        blobs: list[bytes] = []
        if record.query_id is not None:
            await self._keeper.settled(record.query_id)
            blobs = await self._parts.within(
                record.query_id, record.clip_start_s, record.clip_end_s
            )
        if not blobs:
            raise _clip_needed("What was kept of the clip is gone, or nothing was.")
        return blobs

    async def _run(self, work: Callable[[], _Told | None], content: bytes) -> _Told | None:
        def checked(check: Callable[[], None]) -> _Told | None:
            check()
            return work()

        return await self._cpu.run(checked, held_bytes=len(content))

    def _decode(self, content: bytes) -> Pcm:
        try:
            return decode_bytes(content, max_duration_s=self._max_clip_s)
        except DecodeError as error:
            if error.reason == "MEDIA_TOO_LONG":
                raise ClipTooLong(f"the clip is longer than {self._max_clip_s:g} s") from error
            raise

    def _from_clip(self, found: Match, pcm: Pcm) -> _Told | None:
        snapshot = self._index.snapshot()
        if snapshot.find(found.recording_id) is None:
            return None
        length_s = pcm.size / PARAMS.sample_rate_hz
        short_s = found.clip_end_s - length_s
        if short_s > SLACK_S or found.clip_start_s >= length_s:
            raise PlatformError(
                ErrorKind.FAILED_PRECONDITION,
                "CLIP_DIFFERS",
                f"The clip has {length_s:.1f} s; the match goes on until {found.clip_end_s:.1f} s.",
                "Send the clip that the match was found in.",
            )
        if short_s > 0:
            found = dataclasses.replace(
                found,
                clip_end_s=length_s,
                video_end_s=found.video_end_s - found.speed * short_s,
            )
        return _Told(found, explain(snapshot, pcm, found), snapshot)

    def _from_parts(self, found: Match, blobs: list[bytes]) -> _Told | None:
        snapshot = self._index.snapshot()
        if snapshot.find(found.recording_id) is None:
            return None
        try:
            parts = [decode_part(blob) for blob in blobs]
        except (ParamsMismatch, CorruptFingerprint):
            raise _clip_needed("What was kept of the clip is of another version.") from None
        return _Told(found, explain_parts(snapshot, parts, found), snapshot)

    def _search(self, pcm: Pcm, recording_id: int, only: list[Segment] | None) -> _Told | None:
        snapshot = self._index.snapshot()
        if only is None:
            options = MatchOptions(top=1, max_clip_s=self._max_clip_s)
            results = match(snapshot, pcm, options).matches
        else:
            index = Index()
            index.apply([(recording_id, 0, join(only))])
            options = MatchOptions(top=1, min_confidence=0.0, max_clip_s=self._max_clip_s)
            results = match(index.snapshot(), pcm, options).matches
        if not results or snapshot.find(results[0].recording_id) is None:
            return None
        found = dataclasses.replace(
            results[0], confidence=confidence(results[0].score, snapshot.hours)
        )
        return _Told(found, explain(snapshot, pcm, found), snapshot)

    async def _named(
        self, told: _Told, record: MatchRecord | None, *, from_kept: bool
    ) -> Explained:
        ids = {told.found.recording_id, *(place.recording_id for place in told.why.runners_up)}
        videos = await self._videos.by_recording_ids(sorted(ids))
        if record is None:
            video = videos.get(told.found.recording_id)
            if video is None:
                raise _nothing(None)
            record = to_record(told.found, video)
        least, _ = thresholds(told.snapshot)
        return Explained(
            match=record,
            why=told.why,
            videos=videos,
            match_score=least,
            hours=told.snapshot.hours,
            from_kept=from_kept,
        )


def _to_match(record: MatchRecord, video: Video) -> Match:
    """A stored match as the engine knows it."""
    parts = record.parts
    return Match(
        recording_id=video.recording_id,
        clip_start_s=record.clip_start_s,
        clip_end_s=record.clip_end_s,
        video_start_s=record.video_start_s,
        video_end_s=record.video_end_s,
        speed=record.speed,
        pitch=record.pitch,
        confidence=record.confidence,
        score=parts.score,
        parts=EngineParts(
            lz=parts.landmark_votes,
            uz=parts.landmark_contrast,
            rp=parts.rectified_correlation,
            overlap=parts.overlap,
            correlation=parts.correlation,
            distance=parts.distance,
            # What is called unchanged is answered with exactly these.
            identity=math.isclose(record.speed, 1.0) and math.isclose(record.pitch, 1.0),
            votes=0,
            coverage=parts.coverage,
        ),
        also_at_s=record.also_at_s,
    )


def _video_gone(video_id: UUID) -> PlatformError:
    return PlatformError(
        ErrorKind.NOT_FOUND,
        "VIDEO_NOT_FOUND",
        f"The match's video {video_id} is no longer indexed.",
        "Match the clip again; the match itself stays readable with GetMatch.",
        metadata={"video": str(video_id)},
        resource=("video", str(video_id)),
    )


def _clip_needed(message: str) -> PlatformError:
    return PlatformError(
        ErrorKind.FAILED_PRECONDITION,
        "CLIP_NEEDED",
        message,
        "Send the clip together with the match's id (`soundhash explain MATCH --clip FILE`). "
        "How long it is kept is SOUNDHASH_EXPLAIN_DAYS.",
    )


def _nothing(video_id: UUID | None) -> PlatformError:
    if video_id is not None:
        return PlatformError(
            ErrorKind.NOT_FOUND,
            "NOTHING_TO_EXPLAIN",
            f"Nothing in the clip comes near to video {video_id}.",
            "Try a longer or a cleaner clip, or another video.",
            metadata={"video": str(video_id)},
        )
    return PlatformError(
        ErrorKind.NOT_FOUND,
        "NOTHING_TO_EXPLAIN",
        "The clip matches nothing.",
        "Name a video to see how near the clip comes to it.",
    )
