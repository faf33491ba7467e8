"""Commands that show and tend a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import AddressOption, JsonOption, connect

if TYPE_CHECKING:
    from soundhash import IndexStatus


def stats(
    context: typer.Context, as_json: JsonOption = False, address: AddressOption = None
) -> None:
    """Show what is stored and what is going on. Fails until the server is ready."""
    with connect(context, address) as client:
        answer = client.stats()
    if as_json:
        output.print_json(answer)
        return
    jobs = ", ".join(f"{count:,} {state.lower()}" for state, count in answer.jobs.items())
    output.print_pairs(
        [
            ("videos", f"{answer.video_count:,}"),
            ("audio", output.length(answer.audio_duration_s)),
            ("segments", f"{answer.segment_count:,}"),
            ("landmarks", f"{answer.landmark_count:,}"),
            ("past matches", f"{answer.match_count:,}"),
            ("jobs", jobs or "none"),
            *_index_pairs(answer.index),
            ("server", f"{answer.server_version}, since {output.moment(answer.start_time)}"),
            ("parameters", answer.params_digest),
        ]
    )


def index(
    context: typer.Context,
    compact: Annotated[
        bool, typer.Option("--compact", help="Merge it into one volume; matching goes on.")
    ] = False,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Show the match index of the server, or compact it."""
    with connect(context, address) as client:
        # A large index takes longer to merge than other calls may take.
        status = client.compact_index(timeout_s=3600.0) if compact else client.index_status()
    if as_json:
        output.print_json(status)
        return
    output.print_pairs(_index_pairs(status))


def _index_pairs(status: IndexStatus) -> list[tuple[str, str]]:
    behind = status.catalogue_revision - status.applied_revision
    return [
        (
            "in the index",
            f"{status.video_count:,} videos, {output.length(status.audio_duration_s)}",
        ),
        (
            "on disk",
            f"{status.volume_count:,} volumes, {output.size(status.disk_bytes)}"
            f" ({status.dead_video_count:,} dead videos)",
        ),
        ("in memory", f"{status.tail_video_count:,} videos, {output.size(status.tail_bytes)}"),
        ("triples", f"{status.triple_count:,}"),
        *(
            [("to be made anew", f"{status.outdated_video_count:,} videos, matched meanwhile")]
            if status.outdated_video_count
            else []
        ),
        *(
            [("unusable", f"{status.unusable_video_count:,} videos, to be ingested again")]
            if status.unusable_video_count
            else []
        ),
        ("catalogue", "taken in" if behind <= 0 else f"{behind:,} changes to take in"),
        ("compaction", "under way" if status.compacting else "idle"),
        *(
            (
                f"postings {shard.name}",
                f"{shard.posting_count:,} of {shard.volume_count:,} volumes on {shard.address}, "
                + (f"not asked: {shard.reason.lower()}" if shard.reason else "answers"),
            )
            for shard in status.posting_shards
        ),
    ]
