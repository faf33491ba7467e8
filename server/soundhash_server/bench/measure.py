"""What is measured at each size of the catalogue."""

import contextlib
import dataclasses
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from soundhash_engine import SilentAudio, Snapshot, Volume, match
from soundhash_server.bench.catalogue import Catalogue, Growth
from soundhash_server.bench.degrade import CONDITIONS
from soundhash_server.bench.recordings import Clip, Material

KINDS = ("clean", "re-encoded", "degraded", "unindexed")
"""What a clip costs depends on how far it is from its recording."""
OFFSET_TOLERANCE_S = 0.5
SAME_RECORDING = 0.9
"""Correlation of a clean clip with the recording that it is from, whatever codec that was in."""


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds a clip, one caller."""

    median_ms: float
    p95_ms: float


@dataclasses.dataclass(frozen=True, slots=True)
class Recall:
    """How many clips were answered with the recording and the place that they are from."""

    found: int
    clips: int

    @property
    def share(self) -> float:
        """0 … 1."""
        return self.found / self.clips

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % bounds."""
        z, n, p = 1.96, self.clips, self.share
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """One size of the catalogue.

    growth       how the index became so large
    latency      by kind
    recall       by condition
    answered     clips of recordings that are not indexed, but were answered, of ``absent``: wrong,
                 or the recordings share sound
    throughput   clips a second by number of callers
    """

    growth: Growth
    latency: dict[str, Latency]
    recall: dict[str, Recall]
    answered: int
    absent: int
    throughput: dict[int, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Everything that was measured.

    machine        its processor
    cores
    recordings     that were indexed, ``indexed_hours`` of them
    clip_s         length of the clips
    decode_x, extract_x  seconds of audio a second of one core; decode_x is None for made-up songs
    sizes          in rising order
    """

    machine: str
    cores: int
    recordings: int
    indexed_hours: float
    clip_s: float
    decode_x: float | None
    extract_x: float
    sizes: tuple[Size, ...]

    @property
    def ingest_x(self) -> float:
        """Decoding and extracting together."""
        if self.decode_x is None:
            return self.extract_x
        return 1.0 / (1.0 / self.decode_x + 1.0 / self.extract_x)


def measure(
    material: Material,
    hours: Sequence[float],
    callers: int,
    clip_s: float,
    folder: Path,
    tell: Callable[[str], None] = lambda _: None,
    base: Sequence[Volume] = (),
) -> Report:
    """Measure at every size; ``folder``: an empty one, for the index.

    A size that the recordings alone exceed is measured as large as they are. ``base``: a catalogue
    to begin with; those of its recordings that are among the ones left out are hidden.
    """
    catalogue = Catalogue(folder, material.indexed, base)
    sizes: list[Size] = []
    for target in sorted(hours):
        if sizes and target <= sizes[-1].growth.hours:
            continue
        tell(f"making an index of {target:,.0f} h")
        growth = catalogue.grow(target, lambda now: tell(f"  {now:,.0f} h"))
        tell(f"asking {sum(map(len, material.clips.values())) + len(material.absent)} clips")
        snapshot = catalogue.snapshot()
        if base:
            snapshot = snapshot.without(_left_out(snapshot, material.absent))
        sizes.append(_measure_size(snapshot, growth, material, callers))
    seconds = sum(made.duration_s for made in material.indexed)
    return Report(
        machine=processor(),
        cores=os.cpu_count() or 1,
        recordings=len(material.indexed),
        indexed_hours=seconds / 3600.0,
        clip_s=clip_s,
        decode_x=material.audio_s / material.decode_s if material.decode_s > 0.0 else None,
        extract_x=material.audio_s / max(material.extract_s, 1e-9),
        sizes=tuple(sizes),
    )


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _measure_size(snapshot: Snapshot, growth: Growth, material: Material, callers: int) -> Size:
    # What is touched first is read from disk: that is the start's cost, not a clip's.
    for clips in material.clips.values():
        _ask(snapshot, clips[0])
    spent: dict[str, list[float]] = {kind: [] for kind in KINDS}
    recall: dict[str, Recall] = {}
    for condition in CONDITIONS:
        clips = material.clips[condition.name]
        found = 0
        for clip in clips:
            begun = time.perf_counter()
            answer = _ask(snapshot, clip)
            spent[condition.kind].append(time.perf_counter() - begun)
            found += _right(answer, clip)
        recall[condition.name] = Recall(found, len(clips))
    answered = 0
    for clip in material.absent:
        begun = time.perf_counter()
        answered += bool(_ask(snapshot, clip))
        spent["unindexed"].append(time.perf_counter() - begun)
    return Size(
        growth=growth,
        latency={
            kind: Latency(
                1000.0 * float(np.median(times)), 1000.0 * float(np.percentile(times, 95))
            )
            for kind, times in spent.items()
        },
        recall=recall,
        answered=answered,
        absent=len(material.absent),
        throughput=_throughput(snapshot, material, callers),
    )


def _left_out(snapshot: Snapshot, absent: Sequence[Clip]) -> set[int]:
    """Recordings of the catalogue that clips were cut out of which are to be found nowhere.

    The very same recording: others that share sound with it correlate less.
    """
    found: set[int] = set()
    for clip in absent:
        with contextlib.suppress(SilentAudio):
            found |= {
                one.recording_id
                for one in match(snapshot, clip.pcm).matches
                if one.parts.correlation > SAME_RECORDING
            }
    return found


Answer = tuple[tuple[int, float, tuple[float, ...]], ...]
"""Recordings with where the clip begins in them, and where else in them it might."""


def _ask(snapshot: Snapshot, clip: Clip) -> Answer:
    try:
        found = match(snapshot, clip.pcm).matches
    except SilentAudio:
        return ()
    return tuple(
        (
            one.recording_id,
            one.video_start_s - one.speed * one.clip_start_s,
            tuple(at_s - one.speed * one.clip_start_s for at_s in one.also_at_s),
        )
        for one in found
    )


def _right(answer: Answer, clip: Clip) -> bool:
    return any(
        recording == clip.recording
        and any(abs(at_s - clip.start_s) <= OFFSET_TOLERANCE_S for at_s in (start_s, *others))
        for recording, start_s, others in answer
    )


def _throughput(snapshot: Snapshot, material: Material, callers: int) -> dict[int, float]:
    """Clips of all conditions asked for by one caller and by several at once."""
    clips = [clip for mine in zip(*material.clips.values(), strict=True) for clip in mine]
    out: dict[int, float] = {}
    for count in sorted({1, callers}):
        with ThreadPoolExecutor(count) as pool:
            begun = time.perf_counter()
            list(pool.map(lambda clip: _ask(snapshot, clip), clips))
            out[count] = len(clips) / (time.perf_counter() - begun)
    return out
