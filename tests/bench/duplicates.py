"""What it costs to compare a catalogue of so many hours with itself, and what is found.

    python -m tests.bench.duplicates --set DIR [DIR ...] --out DIR [--hours 10 100] [--windows 20]
                                     [--json FILE]
    python -m tests.bench.duplicates --set DIR [DIR ...] [--windows 20]

``--set``: evaluation sets (``tests.eval.build``). Without ``--out`` their recordings are compared:
real music, and all pairs that are found are printed.

``--out``: catalogues of ``--hours`` are made of the recordings and kept. Each recording comes again
and again, estranged: its frequencies are stretched and bent by a curve of its own, it hurries and
drags from one quarter of a second to the next, and every other time it runs backwards, so that no
two agree under any change of speed, tempo or pitch.
(``soundhash_server.bench.filler`` mixes few recordings: their pieces share more passages with the
square of their hours, which no real catalogue does.) Then copies are planted: of a hundred
recordings two come again, one at another speed, and one is in part within another one. Copies are
not exact: they begin between two frames, a fifth of the landmarks is missing, and the others are
off by what another encoding does.

``--windows``: so many random 10 s windows are looked up in the rest of the catalogue, as a match
does: what comparing window by window would cost is that times all windows.
"""

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundhash_engine import PARAMS, Fingerprint, Landmarks, Snapshot
from soundhash_engine.comparison import features_of
from soundhash_engine.descriptor import unpack_descriptor
from soundhash_engine.duplicate_keys import Change
from soundhash_engine.duplicates import Duplicate, find_duplicates
from soundhash_engine.index import Index
from soundhash_engine.landmarks import rank_landmarks
from soundhash_engine.matcher import ClipSearch
from soundhash_engine.sealing import Merge
from soundhash_engine.volume import Volume
from soundhash_engine.warm import warm
from soundhash_server.services.volume_files import VolumeFiles
from tests.bench.scale import CATALOGUE, LEAST_S, open_index, references
from tests.eval.data import fingerprint

PIECE_HOURS = 20.0
MIDDLE = 333.0
MOST_STRETCH = 1.3
MOST_HURRY = 1.6
KNOT_FRAMES = 16.0
MAKERS = 2
MADE_AT_ONCE = 64
COPIED = 100
"""Of so many recordings each kind of copy is planted once or twice."""


def estranged(made: Fingerprint, seed: int) -> Fingerprint:
    """The same recording with frequencies and times bent by curves of its own."""
    random = np.random.default_rng(seed)
    made = _hurried(made, random)
    stretch = MOST_STRETCH ** random.uniform(-1, 1)
    bend, period = random.uniform(15, 40), random.uniform(180, 400)
    phase = random.uniform(0, 2 * np.pi)
    old = np.arange(0, 668, dtype=np.float64)
    new = MIDDLE + stretch * (old - MIDDLE) + bend * np.sin(2 * np.pi * old / period + phase)
    new = np.maximum.accumulate(new + 1e-6 * old)
    marks = made.landmarks
    bins = np.round(np.interp(marks.bin, old, new)).astype(np.int32)
    keep = (bins >= 12) & (bins <= 655)
    order = np.lexsort((bins[keep], marks.time[keep]))
    landmarks = rank_landmarks(
        marks.time[keep][order],
        bins[keep][order].astype(np.int16),
        marks.strength[keep][order],
        made.n_frames,
    )
    middle = 12.0 * np.arange(PARAMS.descriptor_bands) + 6.0
    source = np.round((np.interp(middle, new, old) - 6.0) / 12.0).astype(int)
    cells = _cells(made)[:, np.clip(source, 0, PARAMS.descriptor_bands - 1)]
    return dataclasses.replace(made, landmarks=landmarks, descriptor=_packed(cells))


def _hurried(made: Fingerprint, random: np.random.Generator) -> Fingerprint:
    """Faster and slower from one quarter of a second to the next."""
    step = PARAMS.descriptor_frames
    knots = np.arange(0.0, made.n_frames + KNOT_FRAMES, KNOT_FRAMES)
    rates = MOST_HURRY ** random.uniform(-1, 1, len(knots) - 1)
    passed = np.concatenate([[0.0], np.cumsum(rates * KNOT_FRAMES)])
    passed *= knots[-1] / passed[-1]
    marks = made.landmarks
    times = np.round(2.0 * np.interp(0.5 * marks.time, knots, passed)).astype(np.int32)
    times = np.minimum(times, 2 * made.n_frames - 1)
    order = np.lexsort((marks.bin, times))
    middle = step * np.arange(len(made.descriptor)) + 0.5 * step
    rows = (np.interp(middle, passed, knots) / step).astype(int)
    return dataclasses.replace(
        made,
        landmarks=rank_landmarks(
            times[order], marks.bin[order], marks.strength[order], made.n_frames
        ),
        descriptor=made.descriptor[np.clip(rows, 0, len(made.descriptor) - 1)],
    )


def copied(made: Fingerprint, seed: int, speed: float, begin_s: float, end_s: float) -> Fingerprint:
    """A passage as another encoding, at another speed, would have it."""
    random = np.random.default_rng(seed)
    rate = PARAMS.frames_per_s
    first = begin_s * rate + random.uniform(0, 1)
    n_frames = int((end_s - begin_s) * rate / speed) - 2
    marks = made.landmarks
    time_half = (marks.time - 2 * first) / speed + random.normal(0, 0.5, len(marks))
    shift = 4 * PARAMS.bands_per_octave * np.log2(speed)
    bins = np.round(marks.bin + shift + random.normal(0, 0.7, len(marks))).astype(np.int32)
    times = np.round(time_half).astype(np.int32)
    keep = (times >= 0) & (times < 2 * n_frames) & (bins >= 12) & (bins <= 655)
    keep &= random.uniform(size=len(marks)) > 0.2
    strength = marks.strength.astype(np.int32) + random.integers(-1, 2, len(marks))
    strength = np.clip(strength, 0, 63).astype(np.uint8)
    order = np.lexsort((bins[keep], times[keep]))
    landmarks = rank_landmarks(
        times[keep][order], bins[keep][order].astype(np.int16), strength[keep][order], n_frames
    )
    step = PARAMS.descriptor_frames
    rows = ((np.arange(n_frames // step) * step + 2) * speed + first) / step
    cells = _cells(made)
    rows = np.clip(rows.astype(int), 0, len(cells) - 1)
    bands = np.clip(
        np.round(np.arange(PARAMS.descriptor_bands) - shift / 12).astype(int),
        0,
        PARAMS.descriptor_bands - 1,
    )
    noisy = cells[np.ix_(rows, bands)] + random.normal(0, 1.2, (len(rows), len(bands)))
    return Fingerprint(n_frames / rate, n_frames, landmarks, _packed(noisy))


def _cells(made: Fingerprint) -> NDArray[np.float32]:
    return np.asarray(unpack_descriptor(made.descriptor) / PARAMS.descriptor_step_neper)


def _packed(cells: NDArray[Any]) -> NDArray[np.uint8]:
    limit = PARAMS.descriptor_clip_steps
    whole = np.zeros((len(cells), 2 * PARAMS.descriptor_row_bytes), np.uint8)
    values = np.clip(np.round(cells), -limit, limit) + limit + 1
    whole[:, : PARAMS.descriptor_bands] = values.astype(np.uint8)
    return np.asarray(whole[:, 0::2] | whole[:, 1::2] << np.uint8(4))


def mixed(made: Fingerprint, other: Fingerprint, at_s: float) -> Fingerprint:
    """``made`` with what ``other`` has in its place from ``at_s`` on."""
    step = PARAMS.descriptor_frames
    at = int(at_s * PARAMS.frames_per_s) // step * step
    end = min(made.n_frames, at + other.n_frames // step * step)
    marks, others = made.landmarks, other.landmarks
    outside = (marks.time < 2 * at) | (marks.time >= 2 * end)
    inside = others.time < 2 * (end - at)
    times = np.concatenate([marks.time[outside], others.time[inside] + np.int32(2 * at)])
    bins = np.concatenate([marks.bin[outside], others.bin[inside]])
    strength = np.concatenate([marks.strength[outside], others.strength[inside]])
    order = np.lexsort((bins, times))
    landmarks: Landmarks = rank_landmarks(times[order], bins[order], strength[order], made.n_frames)
    descriptor = made.descriptor.copy()
    descriptor[at // step : end // step] = other.descriptor[: (end - at) // step]
    return dataclasses.replace(made, landmarks=landmarks, descriptor=descriptor)


def backwards(made: Fingerprint) -> Fingerprint:
    """The same recording from its end to its begin."""
    marks = made.landmarks
    time_half = np.int32(2 * made.n_frames - 1) - marks.time
    order = np.lexsort((marks.bin, time_half))
    landmarks = rank_landmarks(
        time_half[order], marks.bin[order], marks.strength[order], made.n_frames
    )
    return dataclasses.replace(
        made, landmarks=landmarks, descriptor=np.ascontiguousarray(made.descriptor[::-1])
    )


def catalogue(
    sources: Sequence[Fingerprint], hours: float, planted: dict[tuple[int, int], str]
) -> Iterator[tuple[int, Fingerprint]]:
    """Estranged recordings and copies of them; tells in ``planted`` which pairs are alike how."""
    number, turn, seconds = 0, 0, 0.0
    held: Fingerprint | None = None
    strangers = _strangers(sources)
    while seconds < 3600.0 * hours:
        made = next(strangers)
        place = turn % COPIED
        copy: Fingerprint | None = None
        if place in (3, 53):
            copy = copied(made, turn, 1.0, 0.0, made.duration_s)
        elif place == 28:
            copy = copied(made, turn, 1.07, 0.0, made.duration_s)
        elif place == 77:
            held = made
        elif place == 78 and held is not None and min(held.duration_s, made.duration_s) > 75.0:
            made = mixed(made, copied(held, turn, 1.0, 30.0, 60.0), 40.0)
            planted[number - 1, number] = "PARTIAL"
        yield number, made
        seconds += made.duration_s
        if copy is not None:
            planted[number, number + 1] = "FULL"
            number += 1
            yield number, copy
            seconds += copy.duration_s
        number += 1
        turn += 1


def _strangers(sources: Sequence[Fingerprint]) -> Iterator[Fingerprint]:
    """Estranged recordings for ever, made in processes of their own."""
    with multiprocessing.get_context("fork").Pool(
        MAKERS, initializer=_held.extend, initargs=(sources,)
    ) as pool:
        for first in itertools.count(0, MADE_AT_ONCE):
            yield from pool.imap(_stranger, range(first, first + MADE_AT_ONCE), chunksize=8)


_held: list[Fingerprint] = []


def _stranger(turn: int) -> Fingerprint:
    source = _held[turn % len(_held)]
    return estranged(backwards(source) if turn // len(_held) % 2 else source, turn)


def build(sources: Sequence[Fingerprint], hours: float, out: Path) -> None:
    """One volume of so many hours in a folder, with the planted pairs beside it."""
    out.mkdir(parents=True, exist_ok=True)
    files = VolumeFiles(out)
    index = Index()
    files.open(CATALOGUE)
    planted: dict[tuple[int, int], str] = {}
    piece: list[tuple[int, int, Fingerprint]] = []
    seconds = 0.0

    def write(merge: Merge) -> Volume:
        return files.write(merge, CATALOGUE)

    for number, made in catalogue(sources, hours, planted):
        piece.append((number, 1, made))
        seconds += made.duration_s
        if seconds >= 3600.0 * PIECE_HOURS:
            index.apply(piece)
            index.seal(write, ratio=0.0)
            piece, seconds = [], 0.0
    index.apply(piece)
    index.seal(write, full=True)
    files.keep_only(index.volumes())
    files.close()
    (out / "planted.json").write_text(json.dumps([[*pair, kind] for pair, kind in planted.items()]))


def named_prints(folders: Sequence[Path], out: Path | None) -> list[tuple[str, Fingerprint]]:
    """Recordings of sets by their names, each once; kept in ``out`` for the next time."""
    kept = None if out is None else out / "prints.pkl"
    if kept is not None and kept.exists():
        known: list[tuple[str, Fingerprint]] = pickle.loads(kept.read_bytes())
        return known
    paths = {path.stem: path for folder in folders for path in references(folder)}
    prints = [(name, fingerprint(path)) for name, path in sorted(paths.items())]
    prints = [(name, made) for name, made in prints if made.duration_s >= LEAST_S]
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps(prints))
    return prints


def window_by_window(snapshot: Snapshot, windows: int) -> float:
    """Seconds of the processor to look up a 10 s window in the rest of the catalogue."""
    random = np.random.default_rng(1)
    spent = 0.0
    for _ in range(windows):
        volume = snapshot.volumes[int(random.integers(len(snapshot.volumes)))]
        row = int(random.integers(len(volume.recording_id)))
        made = volume.fingerprint(row)
        start = int(random.integers(max(1, made.n_frames - 624))) // 4 * 4
        rest = snapshot.without([int(volume.recording_id[row])])
        begun = time.process_time()
        features = features_of(made, start, min(624, made.n_frames - start))
        ClipSearch(rest).features(features, 0.0)
        spent += time.process_time() - begun
    return spent / max(1, windows)


def private_peak() -> float:
    """MB that this process has had for itself and of mapped files at the most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def measure(folder: Path, windows: int) -> dict[str, Any]:
    """Compares a kept catalogue; to be called in a process of its own."""
    warm()
    snapshot = open_index(folder).snapshot()
    planted = {(a, b): kind for a, b, kind in json.loads((folder / "planted.json").read_text())}
    found: dict[tuple[int, int], Duplicate] = {}
    with tempfile.TemporaryDirectory() as scratch:
        # What is compiled at the first call is not the catalogue's size.
        nothing = snapshot.without(snapshot.volumes[0].recording_id[20:].tolist())
        list(find_duplicates(nothing, folder=Path(scratch)))
        begun, busy, files = time.perf_counter(), time.process_time(), 0
        look_s, joining_s, before = 0.0, 0.0, busy
        for told in find_duplicates(snapshot, folder=Path(scratch)):
            now = time.process_time()
            # The first half of each change is keys and pairs of places.
            if 0.0 < (told.fraction * len(Change)) % 1.0 < 0.5 + 1e-9:
                joining_s += now - before
            before = now
            found |= {(one.first_id, one.second_id): one for one in told.found}
            if time.perf_counter() > look_s:
                look_s = time.perf_counter() + 0.5
                files = max(files, sum(p.stat().st_size for p in Path(scratch).rglob("*.*")))
        wall_s, processor_s = time.perf_counter() - begun, time.process_time() - busy
    pairs = {(min(pair), max(pair)): one for pair, one in found.items()}
    right = [pair for pair in planted if pair in pairs]
    kinds = [pair for pair in right if pairs[pair].kind.value == planted[pair]]
    row = {
        "hours": snapshot.hours,
        "recordings": snapshot.recordings,
        "processor_s": processor_s,
        "joining_s": joining_s,
        "wall_s": wall_s,
        "ms_an_hour": 1000.0 * processor_s / snapshot.hours,
        "scratch_mb": files / 1e6,
        "peak_mb": private_peak(),
        "planted": len(planted),
        "found": len(right),
        "kind_right": len(kinds),
        "others": len(pairs) - len(right),
        "other_scores": sorted(
            round(max(r.score for r in one.ranges), 1)
            for pair, one in pairs.items()
            if pair not in planted
        )[-10:],
    }
    if windows:
        a_window_s = window_by_window(snapshot, windows)
        row["window_ms"] = 1000.0 * a_window_s
        row["by_windows_s"] = a_window_s * 360.0 * snapshot.hours
    return row


def show(row: dict[str, Any]) -> str:
    """One size in two lines."""
    text = (
        f"{row['hours']:,.0f} h, {row['recordings']:,} recordings: {row['processor_s']:,.1f} s of "
        f"the processor ({row['ms_an_hour']:.0f} ms an hour, {row['joining_s']:,.1f} s of it for "
        f"keys and what they have in common), {row['wall_s']:,.1f} s in all; scratch "
        f"{row['scratch_mb']:,.0f} MB, memory with mapped pages {row['peak_mb']:,.0f} MB\n"
        f"  {row['found']} of {row['planted']} planted pairs, {row['kind_right']} of the right "
        f"kind; {row['others']} others"
    )
    if "window_ms" in row:
        text += (
            f"\n  window by window: {row['window_ms']:.0f} ms each, "
            f"{row['by_windows_s']:,.0f} s for all"
        )
    return text


def real(prints: Sequence[tuple[str, Fingerprint]], windows: int) -> None:
    """What the recordings of sets cost, and every pair."""
    warm()
    names = [name for name, _ in prints]
    index = Index()
    index.apply([(i, 1, made) for i, (_, made) in enumerate(prints)])
    index.seal(full=True)
    snapshot = index.snapshot()
    list(find_duplicates(snapshot.without(range(20, len(names)))))
    busy = time.process_time()
    found = {(f.first_id, f.second_id): f for t in find_duplicates(snapshot) for f in t.found}
    spent = time.process_time() - busy
    print(f"{snapshot.hours:.1f} h, {len(names)} recordings: {spent:.2f} s of the processor")
    if windows:
        by_windows = window_by_window(snapshot, windows) * 360.0 * snapshot.hours
        print(f"window by window: {by_windows:,.0f} s")
    for pair in sorted(found.values(), key=lambda one: -one.shared_s):
        best = max(one.score for one in pair.ranges)
        shares = f"{pair.first_share:.2f} {pair.second_share:.2f}"
        print(
            f"{pair.kind.value:8} {pair.shared_s:6.1f} s {shares} score {best:.1f} "
            f"{names[pair.first_id]} | {names[pair.second_id]}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, nargs="*", default=[], dest="folders")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--hours", type=float, nargs="*", default=[10.0, 100.0])
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--measure", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.measure, options.windows)))
        return 0
    prints = named_prints(options.folders, options.out)
    if not prints:
        parser.error("--set is needed")
    if options.out is None:
        real(prints, options.windows)
        return 0
    report = []
    for hours in sorted(options.hours):
        kept = options.out / f"{hours:g}"
        if not (kept / "planted.json").exists():
            build([made for _, made in prints], hours, kept)
        command = [sys.executable, "-m", "tests.bench.duplicates", "--measure", str(kept)]
        command += ["--windows", str(options.windows)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        report.append(json.loads(done.stdout))
        print(show(report[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
