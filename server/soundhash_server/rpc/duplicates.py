"""Pairs of videos that are alike, between messages and the platform's own data."""

from __future__ import annotations

from collections.abc import Iterable

from soundhash.v1 import catalog_pb2
from soundhash_server.model import DuplicateKind, DuplicatePair, DuplicatesPage, SharedRange
from soundhash_server.rpc.convert import duration, video_message

_PREFIX = "DUPLICATE_KIND_"


def duplicate_kinds(
    numbers: Iterable[catalog_pb2.DuplicateKind.ValueType],
) -> tuple[DuplicateKind, ...]:
    """Kinds of a request, whose numbers have been checked."""
    names = (catalog_pb2.DuplicateKind.Name(number) for number in numbers)
    return tuple(DuplicateKind(name.removeprefix(_PREFIX)) for name in names)


def duplicates_message(page: DuplicatesPage) -> catalog_pb2.ListDuplicatesResponse:
    return catalog_pb2.ListDuplicatesResponse(
        pairs=[_pair(pair) for pair in page.pairs.items],
        next_page_token=page.pairs.next_page_token,
        job_id=str(page.job_id),
        complete=page.complete,
    )


def _pair(pair: DuplicatePair) -> catalog_pb2.DuplicatePair:
    return catalog_pb2.DuplicatePair(
        kind=catalog_pb2.DuplicateKind.Value(f"{_PREFIX}{pair.kind.value}"),
        first=video_message(pair.first),
        second=video_message(pair.second),
        ranges=[_range(one) for one in pair.ranges],
        first_share=pair.first_share,
        second_share=pair.second_share,
    )


def _range(one: SharedRange) -> catalog_pb2.SharedRange:
    return catalog_pb2.SharedRange(
        first_start=duration(one.first_start_s),
        first_end=duration(one.first_end_s),
        second_start=duration(one.second_start_s),
        second_end=duration(one.second_end_s),
        speed=one.speed,
        pitch=one.pitch,
        confidence=one.confidence,
    )
