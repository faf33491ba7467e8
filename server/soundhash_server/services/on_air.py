"""Matches with what monitors have heard: when it was on the air, and pieces of one passage joined.

A monitor's parts overlap, so a passage over the border of two is found in both; so is one within
the overlap. To the caller it is one passage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import timedelta

from soundhash_engine.matcher import Match
from soundhash_server.model import MatchRecord, OnAir, Video

SAME_TIME_S = 3.0
"""Matches that say of one moment of the clip that it was on the air at times no further apart are
one. Parts take their times from when their own audio arrived, which differs by less, also where a
server sends something again after a connection was made anew."""
SAME_SPEED = 0.02
TOUCHING_S = 5.0
"""So much of the clip may lie unmatched between pieces of one passage."""


def on_air(video: Video, found: Match) -> OnAir | None:
    """When a match with this video was on the air; None for videos that no monitor has heard."""
    if video.monitor_id is None or video.air_time is None:
        return None
    # A match's start is cut off at the video's, its end is not.
    end_time = video.air_time + timedelta(seconds=found.video_end_s)
    length_s = found.speed * (found.clip_end_s - found.clip_start_s)
    return OnAir(
        monitor_id=video.monitor_id,
        monitor_name=video.monitor_name,
        start_time=end_time - timedelta(seconds=length_s),
        end_time=end_time,
    )


def joined(found: Iterable[MatchRecord]) -> list[MatchRecord]:
    """The matches, best first as they come, those that are pieces of one passage made one.

    It has the place of the best and the video of the longest piece; its range in that video goes
    on beyond the video's end, as the passage does.
    """
    out: list[MatchRecord] = []
    for match in found:
        piece = match
        place = len(out)
        # A piece may join two that did not touch.
        while (at := next((i for i, one in enumerate(out) if _one(one, piece)), None)) is not None:
            piece = _join(out.pop(at), piece)
            place = min(place, at)
        out.insert(place, piece)
    return out


def at_most(found: Sequence[MatchRecord], top: int) -> list[MatchRecord]:
    """The ``top`` most confident matches, of equally confident ones the videos first; and videos
    rather than what was on the air when there is no room for all."""
    videos = sum(match.on_air is None for match in found)
    room = {True: top, False: max(0, top - videos)}
    out = []
    for match in found:
        is_video = match.on_air is None
        if room[is_video] > 0:
            room[is_video] -= 1
            out.append(match)
    return sorted(out, key=lambda match: (-round(match.confidence, 2), match.on_air is not None))


def _one(first: MatchRecord, second: MatchRecord) -> bool:
    """Whether two matches are pieces of one passage."""
    if first.on_air is None or second.on_air is None:
        return False
    if first.on_air.monitor_id != second.on_air.monitor_id:
        return False
    gap_s = max(first.clip_start_s, second.clip_start_s) - min(first.clip_end_s, second.clip_end_s)
    if gap_s > TOUCHING_S or abs(first.speed - second.speed) > SAME_SPEED:
        return False
    middle_s = 0.25 * (
        first.clip_start_s + first.clip_end_s + second.clip_start_s + second.clip_end_s
    )
    between = _air_time(first, middle_s) - _air_time(second, middle_s)
    return abs(between.total_seconds()) <= SAME_TIME_S


def _air_time(match: MatchRecord, clip_s: float) -> timedelta:
    """When a moment of the clip was on the air, from any moment on that is the same for all."""
    if match.on_air is None:
        raise ValueError("the match is not on the air")
    begun = timedelta(seconds=match.on_air.start_time.timestamp())
    return begun + timedelta(seconds=match.speed * (clip_s - match.clip_start_s))


def _join(first: MatchRecord, second: MatchRecord) -> MatchRecord:
    longest, other = first, second
    if second.clip_end_s - second.clip_start_s > first.clip_end_s - first.clip_start_s:
        longest, other = second, first
    if longest.on_air is None or other.on_air is None:
        raise ValueError("a match is not on the air")
    start_s = min(longest.clip_start_s, other.clip_start_s)
    end_s = max(longest.clip_end_s, other.clip_end_s)
    before_s = longest.speed * (longest.clip_start_s - start_s)
    after_s = longest.speed * (end_s - longest.clip_end_s)
    surest = max(first, second, key=lambda match: match.parts.score)
    return dataclasses.replace(
        longest,
        clip_start_s=start_s,
        clip_end_s=end_s,
        video_start_s=max(0.0, longest.video_start_s - before_s),
        video_end_s=longest.video_end_s + after_s,
        confidence=surest.confidence,
        parts=surest.parts,
        on_air=dataclasses.replace(
            longest.on_air,
            start_time=longest.on_air.start_time - timedelta(seconds=before_s),
            end_time=longest.on_air.end_time + timedelta(seconds=after_s),
        ),
    )
