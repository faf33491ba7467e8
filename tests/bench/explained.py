"""Draws why a clip of made-up music is a match: `python -m tests.bench.explained FILE ...`.

The recordings are five made-up songs and a mix of two of them. The clip is six seconds of one of
these two, played 6 % faster and higher, in noise, and for almost a second there is nothing else.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import numpy as np

from soundhash import Explanation
from soundhash._explanation import explanation
from soundhash.cli._drawing import png, svg
from soundhash.cli._drawing.explained import draw
from soundhash_engine import Index, extract, join, match
from soundhash_engine.explaining import explain
from soundhash_engine.matcher import thresholds
from soundhash_server.model import Video
from soundhash_server.rpc.explained import explained_message
from soundhash_server.services.explaining import Explained
from soundhash_server.services.matching import to_record
from tests.songs import cut, noise, song

SONGS = 5
LENGTH_S = 60.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def made_up(pcm: np.ndarray, length_s: float = LENGTH_S) -> Explanation:
    """Why the best match of a clip among the made-up songs is one."""
    index = Index()
    songs = {i: song(length_s, i) for i in range(1, SONGS + 1)}
    songs[SONGS + 1] = songs[2] + songs[5]
    index.apply([(i, 1, join(extract(pcm.astype(np.float32)))) for i, pcm in songs.items()])
    snapshot = index.snapshot()
    best = match(snapshot, pcm).matches[0]
    titles = {i: f"Made-up song {i}" for i in songs} | {SONGS + 1: "A mix of songs 2 and 5"}
    videos = {i: _video(i, title, length_s) for i, title in titles.items()}
    made = Explained(
        match=to_record(best, videos[best.recording_id]),
        why=explain(snapshot, pcm, best),
        videos=videos,
        match_score=thresholds(snapshot)[0],
        hours=snapshot.hours,
        from_kept=False,
    )
    return explanation(explained_message(made))


def example() -> Explanation:
    """Of the clip that the documentation shows."""
    clip = cut(song(LENGTH_S, 2, tempo=1.06, pitch=1.06), 32.0, 6.0) + noise(6.0, 5, 0.04)
    clip[24000:30000] = noise(0.75, 6, 0.3)
    return made_up(clip.astype(np.float32))


def _video(number: int, title: str, length_s: float) -> Video:
    return Video(
        id=UUID(int=number),
        recording_id=number,
        title=title,
        source_url="",
        external_id="",
        channel="",
        duration_s=length_s,
        content_sha256="",
        segment_count=1,
        landmark_count=0,
        params_digest="",
        revision=1,
        create_time=NOW,
        update_time=NOW,
    )


def write(why: Explanation, path: Path) -> None:
    """The picture, in the form that the name's ending says."""
    scene = draw(why)
    if path.suffix == ".png":
        png.write(scene, path)
    else:
        path.write_text(svg.page(scene) if path.suffix == ".html" else svg.svg(scene))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(example(), Path(name))
