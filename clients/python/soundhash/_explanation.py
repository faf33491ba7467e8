"""Why a match is a match, as the client gives it."""

from __future__ import annotations

from dataclasses import dataclass

from soundhash import _convert as convert
from soundhash._types import Match, ScoreParts
from soundhash.v1 import match_pb2


@dataclass(frozen=True, slots=True)
class ScoreTerm:
    """One term of a score: it adds `contribution` = value · weight.

    name: stable as long as the score is made in the same way. description: for people.
    """

    name: str
    description: str
    value: float
    weight: float
    contribution: float


@dataclass(frozen=True, slots=True)
class MatchedPlace:
    """A place of a video at which a part of the clip was weighed.

    clip_start_s, clip_end_s: the part. video_start_s, video_end_s: where it would lie in the
    video; may begin before it (negative) or end after it. score: the sum of the terms.
    """

    video_id: str
    title: str
    source_url: str
    clip_start_s: float
    clip_end_s: float
    video_start_s: float
    video_end_s: float
    speed: float
    pitch: float
    score: float
    confidence: float
    terms: tuple[ScoreTerm, ...]
    parts: ScoreParts


@dataclass(frozen=True, slots=True)
class LandmarkPoints:
    """Landmarks (spectrogram peaks) of one side in the order of time; at most 2000.

    time_s: of the clip or of the video. strength: 0 to 63, in steps of 0.15 neper. total: how
    many there were.
    """

    time_s: tuple[float, ...]
    frequency_hz: tuple[float, ...]
    strength: tuple[int, ...]
    total: int


@dataclass(frozen=True, slots=True)
class AlignedLandmarks:
    """Pairs of landmarks that lie on one another.

    clip, video: indices into the landmarks of each side. residual_s, residual_bins: how far the
    video's lies from where the match predicts it, bins of 1/36 octave. total: how many there were.
    """

    clip: tuple[int, ...]
    video: tuple[int, ...]
    residual_s: tuple[float, ...]
    residual_bins: tuple[float, ...]
    total: int


@dataclass(frozen=True, slots=True)
class OffsetHistogram:
    """How many pairs of landmarks agree at each offset from the place.

    first_offset_s: middle of the first bin. first_possible, last_possible: bins at which the
    clip's middle would lie within the video. background: mean of those that are not near 0.
    """

    first_offset_s: float
    bin_s: float
    votes: tuple[int, ...]
    first_possible: int
    last_possible: int
    background: float


@dataclass(frozen=True, slots=True)
class ContrastPatch:
    """Contrast of a spectrogram: rows (times) by bands (12 an octave) bytes, row by row, the
    lowest band first; 128 plus the contrast in 1/16 neper."""

    rows: int
    bands: int
    cells: bytes


@dataclass(frozen=True, slots=True)
class Patches:
    """The clip, warped to the video's time and pitch, beside the video's stored fingerprint.

    first_clip_s, first_video_s: middle of the first row. row_s: of the video, from row to row.
    lowest_hz: middle of the lowest band in the video.
    """

    clip: ContrastPatch
    video: ContrastPatch
    first_clip_s: float
    first_video_s: float
    row_s: float
    lowest_hz: float


@dataclass(frozen=True, slots=True)
class CoverageBlock:
    """Half a second of the clip: how it correlates with the video, and whether that is enough."""

    start_s: float
    end_s: float
    correlation: float
    covered: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that speaks for a match and against it.

    match: without an id when it was found for the explanation. place: the match at the part of
    the clip that convinces most; all else is of that part. runners_up: the best other places in
    the index, at most 3. match_score: from which on a catalogue of `catalogue_hours` answers.
    from_kept: made from what the server kept of the clip.
    """

    match: Match
    place: MatchedPlace
    clip_landmarks: LandmarkPoints
    video_landmarks: LandmarkPoints
    aligned: AlignedLandmarks
    offsets: OffsetHistogram
    patches: Patches
    blocks: tuple[CoverageBlock, ...]
    runners_up: tuple[MatchedPlace, ...]
    match_score: float
    catalogue_hours: float
    from_kept: bool


def explanation(m: match_pb2.ExplainMatchResponse) -> Explanation:
    """From the answer of ExplainMatch."""
    return Explanation(
        match=convert.match(m.match),
        place=_place(m.place),
        clip_landmarks=_points(m.clip_landmarks),
        video_landmarks=_points(m.video_landmarks),
        aligned=AlignedLandmarks(
            clip=tuple(m.aligned.clip),
            video=tuple(m.aligned.video),
            residual_s=tuple(m.aligned.residual_s),
            residual_bins=tuple(m.aligned.residual_bins),
            total=m.aligned.total,
        ),
        offsets=OffsetHistogram(
            first_offset_s=m.offsets.first_offset_s,
            bin_s=m.offsets.bin_s,
            votes=tuple(m.offsets.votes),
            first_possible=m.offsets.first_possible,
            last_possible=m.offsets.last_possible,
            background=m.offsets.background,
        ),
        patches=Patches(
            clip=_patch(m.patches.clip),
            video=_patch(m.patches.video),
            first_clip_s=m.patches.first_clip_s,
            first_video_s=m.patches.first_video_s,
            row_s=m.patches.row_s,
            lowest_hz=m.patches.lowest_hz,
        ),
        blocks=tuple(
            CoverageBlock(
                start_s=convert.seconds(one.start),
                end_s=convert.seconds(one.end),
                correlation=one.correlation,
                covered=one.covered,
            )
            for one in m.blocks
        ),
        runners_up=tuple(_place(one) for one in m.runners_up),
        match_score=m.match_score,
        catalogue_hours=m.catalogue_hours,
        from_kept=m.from_kept,
    )


def _place(m: match_pb2.MatchedPlace) -> MatchedPlace:
    return MatchedPlace(
        video_id=m.video_id,
        title=m.title,
        source_url=m.source_url,
        clip_start_s=convert.seconds(m.clip_start),
        clip_end_s=convert.seconds(m.clip_end),
        video_start_s=convert.seconds(m.video_start),
        video_end_s=convert.seconds(m.video_end),
        speed=m.speed,
        pitch=m.pitch,
        score=m.score,
        confidence=m.confidence,
        terms=tuple(
            ScoreTerm(
                name=one.name,
                description=one.description,
                value=one.value,
                weight=one.weight,
                contribution=one.contribution,
            )
            for one in m.terms
        ),
        parts=convert.score_parts(m.parts),
    )


def _points(m: match_pb2.LandmarkPoints) -> LandmarkPoints:
    return LandmarkPoints(tuple(m.time_s), tuple(m.frequency_hz), tuple(m.strength), m.total)


def _patch(m: match_pb2.ContrastPatch) -> ContrastPatch:
    return ContrastPatch(m.rows, m.bands, m.cells)
