"""What limits recall: the evidence that a condition leaves, or the search for it.

    python -m tests.eval.ceiling --set DIR [--volumes DIR] [--limit N] [--processes 2]
                                 [--json FILE]

Three shares of the indexed clips, by condition and length:

- *placed*: told the right recording, offset, speed and pitch, the engine's score reaches the match
  threshold there. No search can do better; only better evidence or a better score moves it.
- *looked at*: the search, run through all of its rounds, verifies the right place (0.5 s) by
  itself. What is missing to *placed* is retrieval's loss: an exhaustive search would look there.
- *found*: and believes it. (Another turn of a loop may score as high: that is not counted here.)

``--volumes``: a catalogue around the set's recordings that ``tests.bench.scale`` has kept.
"""

import argparse
import dataclasses
import json
import math
import multiprocessing
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soundhash_engine.landmarks import query_features
from soundhash_engine.matcher import thresholds
from soundhash_engine.params import PARAMS
from soundhash_engine.warm import warm
from soundhash_engine.window import WindowSearch
from tests.bench.scale import open_index, references
from tests.eval.data import OFFSET_TOLERANCE_S, Query, index_folder, read_pcm, read_queries
from tests.eval.fit_score import start_s

_LEAD_FRAMES = 0.5 * PARAMS.n_fft_samples / PARAMS.hop_samples


@dataclasses.dataclass(frozen=True, slots=True)
class Ceiling:
    """One clip: the best score at the right place, told and by search; None without any.

    found  the search's score there reaches the threshold
    """

    condition: str
    length_s: float
    told: float | None
    searched: float | None
    found: bool


class Prober:
    """Places and searches clips of one set."""

    def __init__(self, folder: Path, volumes: Path | None = None) -> None:
        if volumes is None:
            index, names = index_folder(folder / "refs")
        else:
            index = open_index(volumes)
            names = dict(enumerate(path.stem for path in references(folder)))
        self._snapshot = index.snapshot()
        self._names = names
        self._ids = {name: number for number, name in names.items()}
        self.least, _ = thresholds(self._snapshot)

    def __call__(self, query: Query) -> Ceiling | None:
        """None for a clip without a landmark, or whose recording is too short to be indexed."""
        features = query_features(read_pcm(query.path))
        if query.track not in self._ids or not len(features.landmarks):
            return None
        n_frames = features.landmarks.n_frames
        centre = 0.5 * (n_frames - 1) + _LEAD_FRAMES
        position = query.offset_s * PARAMS.frames_per_s - _LEAD_FRAMES + query.speed * centre
        told = WindowSearch(self._snapshot, features)
        told.try_line(self._ids[query.track], position, 36.0 * math.log2(query.pitch), query.speed)
        at_truth = told.run(math.inf, rounds=()).hits
        hits = WindowSearch(self._snapshot, features).run(math.inf).hits
        right = [
            hit
            for hit in hits
            if self._names.get(hit.recording_id) == query.track
            and abs(start_s(hit, n_frames) - query.offset_s) <= OFFSET_TOLERANCE_S
        ]
        return Ceiling(
            condition=query.condition,
            length_s=query.length_s,
            told=max((hit.score for hit in at_truth), default=None),
            searched=max((hit.score for hit in right), default=None),
            found=bool(right) and right[0].score >= self.least,
        )


def shares(clips: Sequence[Ceiling], least: float) -> dict[str, float]:
    """Percent of the clips that are placed, looked at and found."""
    n = max(1, len(clips))
    return {
        "clips": len(clips),
        "placed": 100.0 * sum(c.told is not None and c.told >= least for c in clips) / n,
        "looked_at": 100.0 * sum(c.searched is not None for c in clips) / n,
        "found": 100.0 * sum(c.found for c in clips) / n,
    }


_of_this_set: list[Prober] = []
"""What the processes of a pool inherit."""


def _probe(query: Query) -> Ceiling | None:
    return _of_this_set[0](query)


def measure(
    folder: Path, limit: int | None, processes: int, volumes: Path | None = None
) -> dict[str, Any]:
    """All shares: of everything, and by condition and length."""
    prober = Prober(folder, volumes)
    queries = [query for query in read_queries(folder, limit) if query.track]
    if processes == 1:
        asked = [prober(query) for query in queries]
    else:
        _of_this_set[:] = [prober]
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            asked = pool.map(_probe, queries, chunksize=8)
    clips = [clip for clip in asked if clip is not None]
    cells: dict[str, dict[float, list[Ceiling]]] = defaultdict(lambda: defaultdict(list))
    for clip in clips:
        cells[clip.condition][clip.length_s].append(clip)
    return {
        "set": folder.name,
        "all": shares(clips, prober.least),
        "conditions": {
            condition: {
                f"{length_s:g}": shares(part, prober.least)
                for length_s, part in sorted(lengths.items())
            }
            for condition, lengths in sorted(cells.items())
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True, dest="folder")
    parser.add_argument("--volumes", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    warm()
    found = measure(options.folder, options.limit, options.processes, options.volumes)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    print(f"{'':<24}{'s':>5}{'clips':>7}{'placed':>8}{'looked at':>11}{'found':>7}  (%)")
    rows = [
        (condition, length, row)
        for condition, lengths in found["conditions"].items()
        for length, row in lengths.items()
    ]
    rows.sort(key=lambda item: item[2]["found"])
    for condition, length, row in [*rows, ("all", "", found["all"])]:
        if row["found"] < 100.0:
            print(
                f"{condition:<24}{length:>5}{row['clips']:>7}{row['placed']:>8.1f}"
                f"{row['looked_at']:>11.1f}{row['found']:>7.1f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
