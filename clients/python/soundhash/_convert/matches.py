"""Matches, and the events of streams and URLs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC

from soundhash import _types as t
from soundhash._convert.values import members, seconds, time_of
from soundhash.v1 import (
    match_pb2,
)

_WARNINGS = members(t.StreamWarning, list(match_pb2.StreamWarning.items()), "STREAM_WARNING_")


def score_parts(m: match_pb2.ScoreParts) -> t.ScoreParts:
    return t.ScoreParts(
        score=m.score,
        landmark_votes=m.landmark_votes,
        landmark_contrast=m.landmark_contrast,
        rectified_correlation=m.rectified_correlation,
        correlation=m.correlation,
        distance=m.distance,
        overlap=m.overlap,
        coverage=m.coverage,
    )


def match(m: match_pb2.Match) -> t.Match:
    return t.Match(
        id=m.id,
        query_id=m.query_id,
        video_id=m.video_id,
        title=m.title,
        source_url=m.source_url,
        external_id=m.external_id,
        clip_start_s=seconds(m.clip_start),
        clip_end_s=seconds(m.clip_end),
        video_start_s=seconds(m.video_start),
        video_end_s=seconds(m.video_end),
        speed=m.speed,
        pitch=m.pitch,
        confidence=m.confidence,
        parts=score_parts(m.parts),
        also_at_s=tuple(seconds(place) for place in m.also_at),
        create_time=time_of(m, "create_time"),
        on_air=_on_air(m.on_air) if m.HasField("on_air") else None,
    )


def _on_air(m: match_pb2.OnAir) -> t.OnAir:
    return t.OnAir(
        monitor_id=m.monitor_id,
        monitor_name=m.monitor_name,
        start_time=m.start_time.ToDatetime(tzinfo=UTC),
        end_time=m.end_time.ToDatetime(tzinfo=UTC),
    )


def match_result(m: match_pb2.MatchClipResponse) -> t.MatchResult:
    return t.MatchResult(
        query_id=m.query_id,
        matches=tuple(match(found) for found in m.matches),
        clip_duration_s=seconds(m.clip_duration),
        elapsed_s=seconds(m.elapsed),
        missing=_missing(m.missing),
    )


def _missing(parts: Iterable[match_pb2.MissingPart]) -> tuple[t.MissingPart, ...]:
    return tuple(t.MissingPart(m.part, m.share, m.reason) for m in parts)


def stream_event(m: match_pb2.MatchStreamResponse) -> t.StreamEvent | None:
    """The event, or None for a kind that this client does not know."""
    heard_s = seconds(m.heard)
    match m.WhichOneof("event"):
        case "opened":
            return t.StreamOpened(
                heard_s=heard_s,
                resume_token=m.opened.resume_token,
                received_bytes=m.opened.received_bytes,
                resume_within_s=seconds(m.opened.resume_within),
                resumed=m.opened.resumed,
            )
        case "heard_so_far":
            heard = m.heard_so_far
            warnings = tuple(
                _WARNINGS.get(number, t.StreamWarning.UNKNOWN) for number in heard.warnings
            )
            return t.Heard(heard_s, heard.level_db, heard.peak_db, warnings)
        case "gap":
            return t.Gap(heard_s, seconds(m.gap.start), seconds(m.gap.end))
        case "provisional":
            return t.ProvisionalMatch(heard_s, match(m.provisional.match), m.provisional.stability)
        case "final":
            return t.FinalMatch(heard_s, match(m.final))
        case "summary":
            return t.StreamSummary(
                heard_s, m.summary.query_id, m.summary.match_count, _missing(m.summary.missing)
            )
        case _:
            return None


def url_event(m: match_pb2.MatchUrlResponse) -> t.UrlEvent | None:
    """The event, or None for a kind that this client does not know."""
    match m.WhichOneof("event"):
        case "progress":
            return t.UrlProgress(m.progress.bytes_done, seconds(m.progress.audio_done))
        case "match":
            return t.UrlMatch(match(m.match))
        case "end":
            return t.UrlEnd(
                query_id=m.end.query_id,
                match_count=m.end.matches,
                title=m.end.title,
                clip_duration_s=seconds(m.end.clip_duration),
                elapsed_s=seconds(m.end.elapsed),
                missing=_missing(m.end.missing),
            )
        case _:
            return None


def url_result(events: Iterable[t.UrlEvent]) -> t.MatchResult:
    """All events of an answer as one."""
    matches = []
    end = t.UrlEnd("", 0, "", 0.0, 0.0)
    for event in events:
        if isinstance(event, t.UrlMatch):
            matches.append(event.match)
        elif isinstance(event, t.UrlEnd):
            end = event
    return t.MatchResult(
        end.query_id, tuple(matches), end.clip_duration_s, end.elapsed_s, end.missing, end.title
    )


def pcm_format(value: t.PcmFormat) -> match_pb2.PcmFormat:
    return match_pb2.PcmFormat(
        encoding=match_pb2.PcmEncoding.Value(f"PCM_ENCODING_{value.encoding.name}"),
        sample_rate_hz=value.sample_rate_hz,
        channels=value.channels,
    )
