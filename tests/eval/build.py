"""Make a labelled evaluation set from recordings.

    python -m tests.eval.build OUT [--music FOLDER...] [--speech FOLDER...] [--voices FOLDER...]
                               [--hours 10] [--clips 6] [--further 3] [--unindexed 2] [--seed 7]
                               [--conditions all|prepared|unprepared] [--processes 2]

``--music`` and ``--speech``: folders of recordings, each the work of one maker, or folders of such
folders; without ``--music``, Debian packages are downloaded (``tests.eval.packages``). Music of
25 s or more is taken as it is, up to ``--hours`` of it indexed and at least a quarter of every
maker's left out; speech is joined to recordings of minutes. ``--voices``: speech that is laid over
clips; without it a voice is made up. ``--clips``, ``--further``, ``--unindexed``: clips for each
condition and length, prepared, further, and from recordings that are not indexed.

OUT gets refs/ (what is indexed, 44.1 kHz), negatives/ (what is not, 8 kHz), on_top/ (laid over
clips), queries/ and queries.csv:

    file,condition,length,kind,track,offset,speed,pitch,family,prepared,source,source_offset

``offset`` in the recording's own seconds, ``speed`` and ``pitch`` factors, ``source`` what the clip
was cut from, indexed or not. The same seed and recordings give the same set.
"""

import argparse
import csv
import dataclasses
import multiprocessing
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from scipy import signal

from tests.eval import packages
from tests.eval.audio import RATE_HZ, SUFFIXES, Audio, read, read_wav, resampled, write_wav
from tests.eval.changes import Material, rms
from tests.eval.degrade import CONDITIONS, FURTHER, PREPARED, Condition

LEAST_S = 25.0
LONGEST_S = 1500.0
JOINED_S = 480.0
LEAD_S = 1.0
"""Sound before the clip goes through the change too: a room rings on, codecs and filters settle."""
QUIET = 0.01
"""Pieces with less RMS than this are not asked for."""
COLUMNS = (
    *("file", "condition", "length", "kind", "track", "offset", "speed"),
    *("pitch", "family", "prepared", "source", "source_offset"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A recording that clips are cut from.

    kind  music or speech
    """

    name: str
    path: Path
    kind: str
    indexed: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """A clip to be made."""

    file: str
    condition: str
    length_s: float
    seed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """All clips of one recording."""

    out: Path
    source: Source
    clips: tuple[Clip, ...]


def media(folder: Path) -> list[Path]:
    """The recordings of a folder, each file and each name in it once."""
    found: dict[str, Path] = {}
    for path in sorted(folder.resolve().rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            found.setdefault(path.stem, path)
    return list(found.values())


def makers(folders: Sequence[Path]) -> list[Path]:
    """The folders themselves, or what is in them where they hold nothing but folders."""
    found: list[Path] = []
    for folder in folders:
        inside = sorted(folder.iterdir())
        found += inside if all(path.is_dir() for path in inside) else [folder]
    return found


def seconds(path: Path) -> float:
    """Length as the file's header says; 0 if it cannot be read."""
    try:
        with av.open(str(path)) as container:
            return (container.duration or 0) / 1e6 if container.streams.audio else 0.0
    except (av.FFmpegError, OSError, ValueError):
        return 0.0


def joined(paths: Sequence[Path]) -> Iterator[Audio]:
    """Short recordings one behind the other, in pieces of eight minutes."""
    parts: list[Audio] = []
    for path in paths:
        try:
            parts += [read(path), np.zeros(RATE_HZ // 4, np.float32)]
        except (av.FFmpegError, ValueError):
            continue
        if sum(part.size for part in parts) > JOINED_S * RATE_HZ:
            yield np.concatenate(parts)
            parts = []
    if sum(part.size for part in parts) > 60 * RATE_HZ:
        yield np.concatenate(parts)


def made_voice(seed: int, duration_s: float = 60.0) -> Audio:
    """Something like speech: syllables of a buzzing source through three moving formants."""
    random = np.random.default_rng(seed)
    out: list[NDArray[np.float64]] = []
    while sum(part.size for part in out) < duration_s * RATE_HZ:
        n = int(random.uniform(0.08, 0.3) * RATE_HZ)
        t = np.arange(n) / RATE_HZ
        pitch_hz = random.uniform(90, 180) * (1.0 + random.uniform(-0.2, 0.2) * t / t[-1])
        buzz = signal.sawtooth(2.0 * np.pi * np.cumsum(pitch_hz) / RATE_HZ)
        if random.uniform() < 0.2:
            buzz = random.standard_normal(n)
        source = np.zeros(n)
        for low_hz, high_hz, loud in ((300, 800, 1.0), (900, 2200, 0.5), (2300, 3000, 0.2)):
            b, a = signal.iirpeak(random.uniform(low_hz, high_hz), 6.0, fs=RATE_HZ)
            source += loud * signal.lfilter(b, a, buzz)
        source *= np.hanning(n)
        pause = random.uniform(0.0, 0.05) if random.uniform() < 0.85 else random.uniform(0.2, 0.5)
        out += [source / rms(source), np.zeros(int(pause * RATE_HZ))]
    voice = np.concatenate(out)
    return np.asarray(0.3 * voice / np.abs(voice).max(), np.float32)


def _seed(*parts: object) -> int:
    return zlib.crc32(" ".join(map(str, parts)).encode())


def stage(
    out: Path,
    music: Sequence[Path],
    speech: Sequence[Path],
    voices: Sequence[Path],
    hours: float,
    seed: int,
) -> list[Source]:
    """What is indexed and what is not; writes what is joined or laid over clips."""
    for name in ("refs", "negatives", "on_top", "queries"):
        (out / name).mkdir(parents=True, exist_ok=True)
    indexed: list[tuple[Source, float]] = []
    left: list[Source] = []
    for folder in music:
        found = [(path, seconds(path)) for path in media(folder)]
        found = [(path, s) for path, s in found if LEAST_S <= s <= LONGEST_S]
        order = np.random.default_rng(_seed(seed, folder.name)).permutation(len(found))
        for rank, i in enumerate(order):
            path, length_s = found[i]
            name = f"{folder.name}__{path.stem}"
            # One of four, and the only one of a maker, is left out.
            if rank % 4 == 0:
                left.append(Source(name, path, "music", indexed=False))
            else:
                indexed.append((Source(name, path, "music", indexed=True), length_s))
    sources, total_s = [], 0.0
    for i in np.random.default_rng(seed).permutation(len(indexed)):
        source, length_s = indexed[i]
        if total_s + length_s <= hours * 3600.0:
            sources.append(source)
            total_s += length_s
        else:
            left.append(dataclasses.replace(source, indexed=False))
    for folder in speech:
        for number, audio in enumerate(joined(media(folder))):
            name = f"speech_{folder.name}_{number:02d}"
            keep = number % 3 != 2
            path = out / ("refs" if keep else "negatives") / f"{name}.wav"
            write_wav(path, audio)
            sources.append(Source(name, path, "speech", indexed=keep))
    random = np.random.default_rng(_seed(seed, "on top"))
    for i in random.permutation(len(left))[: max(1, len(left) // 10)]:
        write_wav(out / "on_top" / f"music_{left[i].name}.wav", read(left[i].path)[: 180 * RATE_HZ])
        left[i] = dataclasses.replace(left[i], kind="")
    spoken = [audio for folder in voices for audio in joined(media(folder))]
    for number, audio in enumerate(spoken or [made_voice(seed)]):
        write_wav(out / "on_top" / f"voice_{number:02d}.wav", audio)
    return [*sources, *(source for source in left if source.kind)]


def plan(
    sources: Sequence[Source],
    conditions: Sequence[Condition],
    counts: dict[str, int],
    seed: int,
) -> dict[str, list[Clip]]:
    """Clips of each source; ``counts``: clips a cell, ``prepared``, ``further``, ``unindexed``."""
    clips: dict[str, list[Clip]] = {source.name: [] for source in sources}
    pools = {
        (kind, indexed): [s for s in sources if s.kind == kind and s.indexed == indexed]
        for kind in ("music", "speech")
        for indexed in (True, False)
    }

    def add(condition: Condition, length_s: float, count: int, indexed: bool) -> None:
        random = np.random.default_rng(_seed(seed, condition.name, length_s, indexed))
        for number in range(count):
            kind = "speech" if random.uniform() < 0.125 else "music"
            pool = pools[kind, indexed] or pools["music", indexed] or pools["speech", indexed]
            if pool:
                label = pool[0].kind if indexed else "negative"
                file = f"{condition.name}_{length_s:g}s_{number:03d}_{label}.wav"
                source = pool[int(random.integers(len(pool)))]
                clips[source.name].append(
                    Clip(file, condition.name, length_s, int(random.integers(2**31)))
                )

    for condition in conditions:
        for length_s in condition.lengths_s:
            kind = "prepared" if condition.prepared else "further"
            add(condition, length_s, counts[kind], indexed=True)
            add(condition, length_s, counts["unindexed"], indexed=False)
    return clips


def cut(audio: Audio, clip: Clip, material: Sequence[Path]) -> tuple[float, Audio] | None:
    """Where the clip begins in the recording, and its sound; None where all is quiet."""
    condition = CONDITIONS[clip.condition]
    random = np.random.default_rng(clip.seed)
    need = int((clip.length_s + LEAD_S + 0.3) * condition.speed * RATE_HZ)
    if audio.size <= need:
        return None
    for _ in range(60):
        start = int(random.integers(0, audio.size - need))
        piece = audio[start : start + need]
        lead = int(LEAD_S * condition.speed * RATE_HZ)
        if min(rms(part) for part in np.array_split(piece[lead:], 2)) > QUIET:
            break
    else:
        return None
    on_top = {}
    for kind in ("voice", "music"):
        paths = [path for path in material if path.name.startswith(kind)]
        other = read_wav(paths[int(random.integers(len(paths)))])
        for _ in range(60):
            at = int(random.integers(0, max(1, other.size - need)))
            on_top[kind] = other[at : at + need]
            if rms(on_top[kind]) > QUIET:
                break
    changed = condition.step(piece, random, Material(**on_top))
    first = round(LEAD_S * RATE_HZ)
    sound = changed[first : first + round(clip.length_s * RATE_HZ)]
    if sound.size < round(clip.length_s * RATE_HZ):
        return None
    loud = max(1e-6, float(np.abs(sound).max()))
    return start / RATE_HZ + LEAD_S * condition.speed, (sound * (0.7 / loud)).astype(np.float32)


def make(job: Job) -> list[list[str]]:
    """Write a recording and its clips; the rows of queries.csv, none if it cannot be read."""
    source = job.source
    try:
        audio = read(source.path)
    except (av.FFmpegError, ValueError) as error:
        print(f"{source.path} is left out: {error}", file=sys.stderr)
        return []
    if source.indexed and source.path.parent != job.out / "refs":
        write_wav(job.out / "refs" / f"{source.name}.wav", audio)
    if not source.indexed:
        path = job.out / "negatives" / f"{source.name}.wav"
        write_wav(path, resampled(audio, RATE_HZ, 8000), 8000)
    material = sorted((job.out / "on_top").glob("*.wav"))
    rows = []
    for clip in job.clips:
        made = cut(audio, clip, material)
        if made is None:
            continue
        at_s, sound = made
        write_wav(job.out / "queries" / clip.file, sound)
        condition = CONDITIONS[clip.condition]
        rows.append(
            [
                clip.file,
                clip.condition,
                f"{clip.length_s:g}",
                source.kind if source.indexed else "negative",
                source.name if source.indexed else "",
                f"{at_s:.4f}" if source.indexed else "",
                f"{condition.speed:.6g}",
                f"{condition.pitch:.6g}",
                condition.family,
                str(int(condition.prepared)),
                source.name,
                f"{at_s:.4f}",
            ]
        )
    return rows


def build(
    out: Path,
    music: Sequence[Path],
    *,
    speech: Sequence[Path] = (),
    voices: Sequence[Path] = (),
    hours: float = 10.0,
    counts: dict[str, int] | None = None,
    conditions: Sequence[Condition] | None = None,
    seed: int = 7,
    processes: int = 2,
) -> int:
    """Make a set in ``out``; how many clips it has."""
    sources = stage(out, music, speech, voices, hours, seed)
    clips = plan(
        sources,
        list(CONDITIONS.values()) if conditions is None else conditions,
        {"prepared": 6, "further": 3, "unindexed": 2} | (counts or {}),
        seed,
    )
    jobs = [
        Job(out, source, tuple(clips[source.name]))
        for source in sources
        if source.indexed or clips[source.name]
    ]
    # In no order, so that what is there first is like the whole.
    np.random.default_rng(seed).shuffle(jobs)
    rows: list[list[str]] = []
    with (out / "queries.csv").open("w", newline="") as file:
        # As it comes, so that what is there can be used before everything is.
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for made in _all_made(jobs, processes):
            writer.writerows(made)
            file.flush()
            rows += made
        file.seek(0)
        writer.writerow(COLUMNS)
        writer.writerows(sorted(rows))
    return len(rows)


def _all_made(jobs: Sequence[Job], processes: int) -> Iterator[list[list[str]]]:
    if processes == 1:
        yield from map(make, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(make, jobs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--music", type=Path, nargs="*", default=[])
    parser.add_argument("--speech", type=Path, nargs="*", default=[])
    parser.add_argument("--voices", type=Path, nargs="*", default=[])
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--further", type=int, default=3)
    parser.add_argument("--unindexed", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--conditions", choices=("all", "prepared", "unprepared"), default="all")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    conditions = {"all": CONDITIONS, "prepared": PREPARED, "unprepared": FURTHER}
    music, speech, voices = map(makers, (options.music, options.speech, options.voices))
    if not music:
        try:
            music, speech, voices = (
                packages.fetch(options.out.parent / "corpus", names)
                for names in (packages.MUSIC, packages.SPEECH, packages.VOICES)
            )
        except packages.NoPackagesError as error:
            print(error, file=sys.stderr)
            return 1
    count = build(
        options.out,
        music,
        speech=speech,
        voices=voices,
        hours=options.hours,
        counts={
            "prepared": options.clips,
            "further": options.further,
            "unindexed": options.unindexed,
        },
        conditions=list(conditions[options.conditions].values()),
        seed=options.seed,
        processes=options.processes,
    )
    print(f"{count} clips in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
