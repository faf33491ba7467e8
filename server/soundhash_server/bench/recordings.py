"""The recordings that a measurement is made with: found, read once, clips cut out of them."""

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from soundhash_engine import (
    SAMPLE_RATE_HZ,
    DecodeError,
    Extractor,
    Fingerprint,
    Segment,
    decode_file,
    join,
)
from soundhash_server.bench.catalogue import FIRST_ID
from soundhash_server.bench.degrade import CONDITIONS, FASTER, Condition, Pcm
from soundhash_server.bench.songs import song

ENDINGS = frozenset(
    {".aac", ".aif", ".aiff", ".flac", ".m4a", ".mka", ".mkv", ".mov", ".mp3", ".mp4"}
    | {".oga", ".ogg", ".opus", ".wav", ".webm", ".wma"}
)
LEAST_S = 20.0
"""Shorter recordings are left out."""
SONGS, SONG_S = 15, 60.0
"""Made-up recordings, where none are given."""
LEAST_LEVEL = 0.003
"""Quieter passages make no clips."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A clip and where it is from.

    recording  id of the recording in the index, −1 if it is not indexed
    start_s    where in the recording the clip begins
    """

    pcm: Pcm
    recording: int
    start_s: float


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What there is to measure with.

    indexed      fingerprints of the recordings that are indexed, in the order of their ids
    clips        of these, by condition
    absent       clips of recordings that are not indexed
    audio_s      of all recordings
    decode_s, extract_s  seconds of one core that decoding and fingerprinting them took
    """

    indexed: tuple[Fingerprint, ...]
    clips: dict[str, tuple[Clip, ...]]
    absent: tuple[Clip, ...]
    audio_s: float
    decode_s: float
    extract_s: float


def find(paths: Sequence[Path], most: int) -> list[Path]:
    """Media files in files and folders, in order; of more than ``most`` some, evenly spread.

    Raises FileNotFoundError.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS)
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    if len(found) > most:
        found = [found[i] for i in np.linspace(0, len(found) - 1, most).astype(int)]
    return found


def read(paths: Sequence[Path], count: int, length_s: float) -> Material:
    """Read recordings, or make some up if there are none.

    Every fifth is not indexed. ``count`` clips of ``length_s`` seconds are made under every
    condition, and as many of what is not indexed. Raises ValueError when there is too little.
    """
    source = _files(paths) if paths else _songs()
    prints: list[Fingerprint] = []
    pieces: list[list[tuple[float, Pcm]]] = []
    most = len(paths) or SONGS
    audio_s = decode_s = extract_s = 0.0
    for number, (pcm, spent_s) in enumerate(source):
        decode_s += spent_s
        begun = time.process_time()
        made = _fingerprint(pcm)
        extract_s += time.process_time() - begun
        audio_s += pcm.size / SAMPLE_RATE_HZ
        prints.append(made)
        # A fifth of them make the clips that are not indexed; some may be silent.
        pieces.append(_cut(pcm, -(-5 * count // most) + 2, length_s * FASTER, number))
    indexed = [n for n in range(len(prints)) if n % 5 != 4]
    absent = [n for n in range(len(prints)) if n % 5 == 4]
    clean = _spread([(place, pieces[n]) for place, n in enumerate(indexed, FIRST_ID)], count)
    other = _spread([(-1, pieces[n]) for n in absent], count)
    if not clean or not other:
        raise ValueError(
            f"too little audio: at least five recordings of {LEAST_S:.0f} s that are not silent"
        )
    length = round(length_s * SAMPLE_RATE_HZ)
    return Material(
        indexed=tuple(prints[n] for n in indexed),
        clips={
            condition.name: tuple(
                _change(clip, other[i % len(other)], condition, length)
                for i, clip in enumerate(clean)
            )
            for condition in CONDITIONS
        },
        absent=tuple(dataclasses.replace(clip, pcm=clip.pcm[:length]) for clip in other),
        audio_s=audio_s,
        decode_s=decode_s,
        extract_s=extract_s,
    )


def _files(paths: Sequence[Path]) -> Iterator[tuple[Pcm, float]]:
    for path in paths:
        begun = time.process_time()
        try:
            pcm = np.concatenate([np.empty(0, np.float32), *decode_file(path)])
        except DecodeError as error:
            sys.stderr.write(f"left out: {path}: {error.message}\n")
            continue
        spent_s = time.process_time() - begun
        if pcm.size < LEAST_S * SAMPLE_RATE_HZ:
            sys.stderr.write(f"left out: {path}: shorter than {LEAST_S:.0f} s\n")
            continue
        yield pcm, spent_s


def _songs() -> Iterator[tuple[Pcm, float]]:
    for seed in range(1, SONGS + 1):
        yield song(SONG_S, seed), 0.0


def _fingerprint(pcm: Pcm) -> Fingerprint:
    extractor = Extractor()
    segments: list[Segment] = []
    for at in range(0, pcm.size, SAMPLE_RATE_HZ * 10):
        segments += extractor.push(pcm[at : at + SAMPLE_RATE_HZ * 10])
    return join([*segments, *extractor.finish()])


def _cut(pcm: Pcm, count: int, length_s: float, seed: int) -> list[tuple[float, Pcm]]:
    """Pieces that are not silent, at random places; the same ones every time."""
    random = np.random.default_rng(seed)
    length = round(length_s * SAMPLE_RATE_HZ)
    out: list[tuple[float, Pcm]] = []
    for _ in range(3 * count):
        if len(out) == count or pcm.size < length:
            break
        start = int(random.integers(0, pcm.size - length + 1))
        piece = pcm[start : start + length]
        if float(np.sqrt(np.mean(piece**2))) > LEAST_LEVEL:
            out.append((start / SAMPLE_RATE_HZ, piece.copy()))
    return out


def _spread(pieces: list[tuple[int, list[tuple[float, Pcm]]]], count: int) -> list[Clip]:
    """The first piece of every recording, then the second of every one, up to ``count``."""
    turns = max((len(mine) for _, mine in pieces), default=0)
    return [
        Clip(pcm=mine[turn][1], recording=recording, start_s=mine[turn][0])
        for turn in range(turns)
        for recording, mine in pieces
        if turn < len(mine)
    ][:count]


def _change(clip: Clip, other: Clip, condition: Condition, length: int) -> Clip:
    needed = round(length * condition.speed)
    changed = condition.change(clip.pcm[:needed], other.pcm[:needed])
    return dataclasses.replace(clip, pcm=np.ascontiguousarray(changed[:length], np.float32))
