"""Matches, and the events of streams and URLs."""

from __future__ import annotations

from soundhash.v1 import (
    match_pb2,
)
from soundhash_engine import PcmFormat
from soundhash_engine.postings import Missing
from soundhash_server.model import (
    MatchRecord,
    OnAir,
    ScoreParts,
)
from soundhash_server.rpc.convert.values import duration, id_text, timestamp
from soundhash_server.services.live import (
    FinalMatch,
    Gap,
    Heard,
    Opened,
    ProvisionalMatch,
    StreamWarning,
    Summary,
    Told,
)
from soundhash_server.services.url_matching import UrlEvent, UrlMatch, UrlProgress

_PCM_ENCODINGS = {
    match_pb2.PCM_ENCODING_S16LE: "s16le",
    match_pb2.PCM_ENCODING_S32LE: "s32le",
    match_pb2.PCM_ENCODING_F32LE: "f32le",
    match_pb2.PCM_ENCODING_U8: "u8",
}
_STREAM_WARNINGS = {
    StreamWarning.SILENCE: match_pb2.STREAM_WARNING_SILENCE,
    StreamWarning.CLIPPING: match_pb2.STREAM_WARNING_CLIPPING,
    StreamWarning.LATE: match_pb2.STREAM_WARNING_LATE,
}


def parts_message(parts: ScoreParts) -> match_pb2.ScoreParts:
    return match_pb2.ScoreParts(
        score=parts.score,
        landmark_votes=parts.landmark_votes,
        landmark_contrast=parts.landmark_contrast,
        rectified_correlation=parts.rectified_correlation,
        correlation=parts.correlation,
        distance=parts.distance,
        overlap=parts.overlap,
        coverage=parts.coverage,
    )


def match_message(match: MatchRecord) -> match_pb2.Match:
    return match_pb2.Match(
        id=id_text(match.id),
        query_id=id_text(match.query_id),
        video_id=str(match.video_id),
        title=match.title,
        source_url=match.source_url,
        external_id=match.external_id,
        clip_start=duration(match.clip_start_s),
        clip_end=duration(match.clip_end_s),
        video_start=duration(match.video_start_s),
        video_end=duration(match.video_end_s),
        speed=match.speed,
        pitch=match.pitch,
        confidence=match.confidence,
        parts=parts_message(match.parts),
        also_at=[duration(at_s) for at_s in match.also_at_s],
        create_time=timestamp(match.create_time),
        on_air=_on_air(match.on_air) if match.on_air else None,
    )


def _on_air(on_air: OnAir) -> match_pb2.OnAir:
    return match_pb2.OnAir(
        monitor_id=str(on_air.monitor_id),
        monitor_name=on_air.monitor_name,
        start_time=timestamp(on_air.start_time),
        end_time=timestamp(on_air.end_time),
    )


def missing_message(part: Missing) -> match_pb2.MissingPart:
    return match_pb2.MissingPart(part=part.part, share=part.share, reason=part.reason)


def stream_message(told: Told) -> match_pb2.MatchStreamResponse:
    event = told.event
    message = match_pb2.MatchStreamResponse(
        heard=duration(event.heard_s),
        sequence=told.sequence,
        received_bytes=told.received_bytes,
    )
    match event:
        case Opened():
            message.opened.CopyFrom(
                match_pb2.StreamOpened(
                    resume_token=event.token,
                    received_bytes=event.received_bytes,
                    resume_within=duration(event.resume_within_s),
                    resumed=event.resumed,
                )
            )
        case Heard():
            message.heard_so_far.CopyFrom(
                match_pb2.HeardSoFar(
                    level_db=event.level_db,
                    peak_db=event.peak_db,
                    warnings=[_STREAM_WARNINGS[warning] for warning in event.warnings],
                )
            )
        case ProvisionalMatch():
            message.provisional.CopyFrom(
                match_pb2.ProvisionalMatch(
                    match=match_message(event.match), stability=event.stability
                )
            )
        case FinalMatch():
            message.final.CopyFrom(match_message(event.match))
        case Gap():
            message.gap.CopyFrom(
                match_pb2.StreamGap(start=duration(event.start_s), end=duration(event.end_s))
            )
        case Summary():
            message.summary.CopyFrom(
                match_pb2.StreamSummary(
                    query_id=str(event.query_id or ""),
                    match_count=event.match_count,
                    missing=[missing_message(part) for part in event.missing],
                )
            )
    return message


def url_match_message(event: UrlEvent) -> match_pb2.MatchUrlResponse:
    match event:
        case UrlProgress():
            return match_pb2.MatchUrlResponse(
                progress=match_pb2.MatchUrlProgress(
                    bytes_done=event.bytes_done, audio_done=duration(event.audio_done_s)
                )
            )
        case UrlMatch():
            return match_pb2.MatchUrlResponse(match=match_message(event.match))
    answer = event.answer
    return match_pb2.MatchUrlResponse(
        end=match_pb2.MatchUrlEnd(
            matches=len(answer.matches),
            title=event.title,
            clip_duration=duration(answer.clip_duration_s),
            query_id=str(answer.query_id),
            elapsed=duration(event.elapsed_s),
            missing=[missing_message(part) for part in answer.missing],
        )
    )


def pcm_format(message: match_pb2.PcmFormat) -> PcmFormat:
    return PcmFormat(
        sample_rate_hz=message.sample_rate_hz,
        channels=message.channels,
        encoding=_PCM_ENCODINGS[message.encoding],
    )
