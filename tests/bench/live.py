"""How soon a stream is answered, what it costs, and how many a server carries.

    python -m tests.bench.live --set DIR [--volumes DIR] [--clips 200] [--json]
    python -m tests.bench.live --set DIR --streams 20 40 60 80 [--seconds 30] [--recordings 8]
    python -m tests.bench.live --set DIR --hours 24

``--set``: an evaluation set (``tests.eval.build``). Its recordings are the catalogue, or with
``--volumes`` those that ``tests.bench.scale`` has kept, made from the same set.

- The first form plays clean pieces of indexed recordings to the engine, half second by half
  second: seconds of audio until the right recording is named, and until that is certain (safe to
  publish, and seen twice); and pieces of recordings that are not indexed. Then the processor time
  of a second of audio, and of a step (half a second).
- ``--streams`` starts a platform (`soundhash up`: all its processes, its database) with some of the
  recordings and plays to it so many streams at once in real time, in pieces of 100 ms, two of three
  known. Latency is from sending the last piece of a half second to its events, on the client's
  clock. The client and the whole platform share this machine. It goes on until a stream is refused.
- ``--hours`` plays music, known and not, for so long through one matcher and prints what it holds.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import pickle
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import psutil

import soundhash
from soundhash.v1 import match_pb2, match_pb2_grpc
from soundhash_engine.index import Index, Snapshot
from soundhash_engine.live import STEP_S, LiveMatcher, Provisional
from soundhash_engine.params import SAMPLE_RATE_HZ
from soundhash_engine.score import MATCH_CONFIDENCE, PUBLISH_CONFIDENCE
from soundhash_engine.types import Pcm
from soundhash_engine.warm import warm
from soundhash_server.services.live.answers import PUBLISH_STABILITY, likeliest
from tests.bench.platform import ingest, platform
from tests.bench.scale import open_index, references
from tests.eval.data import index_folder, read_pcm, read_twins

CLIP_S = 8.0
LEAST_RMS = 0.01
STEP_SAMPLES = round(STEP_S * SAMPLE_RATE_HZ)
PIECE_S = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Answered:
    """One piece of a recording: seconds of audio until it was answered, infinite for never."""

    named_s: float
    certain_s: float
    wrong: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Carried:
    """So many streams at once."""

    streams: int
    refused: int
    events: int
    median_ms: float
    p95_ms: float
    worst_ms: float
    processor_ms: float
    """Of the server, a second of one stream."""


def pieces(
    paths: Sequence[Path], count: int, length_s: float, seed: int
) -> Iterator[tuple[int, Pcm]]:
    """Pieces that begin with sound, a few of each recording, with the recording's number."""
    random = np.random.default_rng(seed)
    length = round(length_s * SAMPLE_RATE_HZ)
    made = 0
    while made < count:
        number = int(random.integers(len(paths)))
        pcm = read_pcm(paths[number])
        for _ in range(5):
            if pcm.size <= length or made == count:
                break
            start = int(random.integers(0, pcm.size - length))
            piece = pcm[start : start + length].copy()
            if float(np.sqrt(np.mean(piece[: 3 * SAMPLE_RATE_HZ] ** 2))) > LEAST_RMS:
                made += 1
                yield number, piece


def answered(snapshot: Snapshot, right: set[int], pcm: Pcm, spent: list[float]) -> Answered:
    """Plays a piece; ``spent`` gets the milliseconds of each step.

    right: the piece's recording, and other versions of it.
    """
    matcher = LiveMatcher()
    named_s = certain_s = float("inf")
    wrong = False
    for start in range(0, pcm.size - STEP_SAMPLES + 1, STEP_SAMPLES):
        begun = time.thread_time()
        matcher.push(pcm[start : start + STEP_SAMPLES])
        events = matcher.step(snapshot)
        spent.append(1000.0 * (time.thread_time() - begun))
        shown = likeliest(events, MATCH_CONFIDENCE)
        if shown is None:
            continue
        if shown.match.recording_id not in right:
            wrong = True
            continue
        named_s = min(named_s, matcher.duration_s)
        certain = shown.match.confidence >= PUBLISH_CONFIDENCE
        if certain and shown.stability >= PUBLISH_STABILITY:
            certain_s = min(certain_s, matcher.duration_s)
    return Answered(named_s, certain_s, wrong)


def spread(values: Sequence[float]) -> str:
    """Median, 95th percentile and largest."""
    parts = np.percentile(np.array(values), [50, 95, 100], method="higher")
    return f"median {parts[0]:.1f}, p95 {parts[1]:.1f}, most {parts[2]:.1f}"


def measure_answers(folder: Path, index: Index, count: int) -> dict[str, object]:
    """The first form."""
    snapshot = index.snapshot()
    paths = references(folder)
    twins = read_twins(folder)
    right = [
        {i} | {k for k, other in enumerate(paths) if other.stem in twins[path.stem]}
        for i, path in enumerate(paths)
    ]
    known_ms: list[float] = []
    absent_ms: list[float] = []
    given = [
        answered(snapshot, right[number], pcm, known_ms)
        for number, pcm in pieces(paths, count, CLIP_S, seed=1)
    ]
    negatives = sorted((folder / "negatives").glob("*.wav"))
    absent = [
        answered(snapshot, set(), pcm, absent_ms)
        for _, pcm in pieces(negatives, max(1, count // 10), 30.0, seed=2)
    ]
    return {
        "hours": snapshot.hours,
        "clips": len(given),
        "seconds until named": spread([one.named_s for one in given]),
        "seconds until certain": spread([one.certain_s for one in given]),
        "with another name at some time": sum(one.wrong for one in given),
        "not indexed": len(absent),
        "of those named": sum(one.wrong for one in absent),
        "ms a second of audio, known": sum(known_ms) / len(known_ms) / STEP_S,
        "ms a second of audio, not indexed": sum(absent_ms) / len(absent_ms) / STEP_S,
        "ms a step, known": spread(known_ms),
        "ms a step, not indexed": spread(absent_ms),
    }


def measure_hours(folder: Path, index: Index, hours: float) -> None:
    """What a matcher holds after each hour."""
    snapshot = index.snapshot()
    paths = [*references(folder), *sorted((folder / "negatives").glob("*.wav"))]
    random = np.random.default_rng(3)
    matcher = LiveMatcher()
    told = 0
    begun, spent, next_h = time.perf_counter(), time.process_time(), 1
    print(f"{'hours':>6}{'state KiB':>11}{'process MiB':>13}{'finals':>8}{'ms/s':>7}")
    while matcher.duration_s < 3600.0 * hours:
        pcm = read_pcm(paths[int(random.integers(len(paths)))])
        for start in range(0, min(pcm.size, 300 * SAMPLE_RATE_HZ), 8 * STEP_SAMPLES):
            matcher.push(pcm[start : start + 8 * STEP_SAMPLES])
            told += sum(not isinstance(e, Provisional) for e in matcher.step(snapshot))
        if matcher.duration_s >= 3600.0 * next_h:
            held = len(pickle.dumps(matcher)) / 1024
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            cost = 1000.0 * (time.process_time() - spent) / matcher.duration_s
            print(f"{next_h:6d}{held:11.0f}{peak:13.0f}{told:8d}{cost:7.1f}", flush=True)
            next_h += 1
    print(f"{time.perf_counter() - begun:.0f} s")


class Player:
    """One stream in real time; notes how long each half second takes to be told."""

    def __init__(self, stub: match_pb2_grpc.MatchServiceStub, pcm: Pcm, delay_s: float) -> None:
        self._stub = stub
        self._content = (np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes()
        self._delay_s = delay_s
        self._sent: list[float] = []
        self.late_ms: list[float] = []
        self.refused = False

    @property
    def played_s(self) -> float:
        return 0.0 if self.refused else PIECE_S * len(self._sent)

    async def play(self) -> None:
        await asyncio.sleep(self._delay_s)
        call = self._stub.MatchStream(self._requests())
        try:
            while (event := await call.read()) is not grpc.aio.EOF:
                kind = event.WhichOneof("event")
                heard_s = event.heard.ToTimedelta().total_seconds()
                # The last step is the stream's end.
                number = round(heard_s / PIECE_S) - 1
                if kind in ("heard_so_far", "provisional") and number < len(self._sent):
                    self.late_ms.append(1000.0 * (time.perf_counter() - self._sent[number]))
        except grpc.aio.AioRpcError:
            # grpc.aio may lose the status of a call that ends while its caller sends.
            if self.late_ms:
                raise
            self.refused = True

    async def _requests(self) -> AsyncIterator[match_pb2.MatchStreamRequest]:
        pcm = match_pb2.PcmFormat(
            encoding=match_pb2.PCM_ENCODING_S16LE, sample_rate_hz=SAMPLE_RATE_HZ, channels=1
        )
        yield match_pb2.MatchStreamRequest(config=match_pb2.MatchStreamConfig(pcm=pcm))
        size = 2 * round(PIECE_S * SAMPLE_RATE_HZ)
        begun = time.perf_counter()
        for number, at in enumerate(range(0, len(self._content), size)):
            # A piece can be sent when it has been played.
            await asyncio.sleep(begun + PIECE_S * (number + 1) - time.perf_counter())
            self._sent.append(time.perf_counter())
            yield match_pb2.MatchStreamRequest(audio=self._content[at : at + size])


async def carry(
    address: str, server: psutil.Process, audio: Sequence[Pcm], streams: int
) -> Carried:
    """So many streams at once, begun within three seconds."""
    random = np.random.default_rng(streams)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = match_pb2_grpc.MatchServiceStub(channel)
        players = [
            Player(stub, audio[i % len(audio)], float(random.uniform(0, 3))) for i in range(streams)
        ]
        before = server.cpu_times()
        await asyncio.gather(*(player.play() for player in players))
        after = server.cpu_times()
    late = [ms for player in players for ms in player.late_ms] or [float("nan")]
    spent_s = after.user + after.system - before.user - before.system
    played_s = sum(player.played_s for player in players)
    median_ms, p95_ms, worst_ms = (float(x) for x in np.percentile(late, [50, 95, 100]))
    return Carried(
        streams,
        sum(player.refused for player in players),
        len(late),
        median_ms,
        p95_ms,
        worst_ms,
        1000.0 * spent_s / max(played_s, PIECE_S),
    )


def measure_streams(
    folder: Path, levels: Sequence[int], seconds: float, recordings: int
) -> list[Carried]:
    """The second form."""
    paths = references(folder)[:recordings]
    negatives = sorted((folder / "negatives").glob("*.wav"))
    audio: list[Pcm] = []
    absent = pieces(negatives, 8, seconds, seed=5)
    for i, (_, pcm) in enumerate(pieces(paths, 16, seconds, seed=4)):
        audio += [pcm] if i % 2 else [pcm, next(absent)[1]]
    done: list[Carried] = []
    # What is measured is how many there is room for, not the setting.
    os.environ["SOUNDHASH_MAX_STREAMS"] = "2000"
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as data,
        platform(Path(data)) as (address, _, server),
        soundhash.Client(address) as client,
    ):
        print(f"indexing {len(paths)} recordings", file=sys.stderr)
        ingest(client, paths)
        print(f"{client.stats().audio_duration_s / 3600:.1f} h indexed", file=sys.stderr)
        asyncio.run(carry(address, server, audio[:2], 2))
        for level in levels:
            done.append(asyncio.run(carry(address, server, audio, level)))
            print_carried(done[-1])
            if done[-1].refused:
                break
    return done


def print_carried(one: Carried) -> None:
    """A line for people."""
    print(
        f"{one.streams:4d} streams: {one.refused} refused, {one.events} events, latency "
        f"median {one.median_ms:.0f} ms, p95 {one.p95_ms:.0f}, most {one.worst_ms:.0f}; "
        f"{one.processor_ms:.0f} ms of processor time a second of a stream",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--volumes", type=Path)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--streams", type=int, nargs="*")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--recordings", type=int, default=8)
    parser.add_argument("--hours", type=float)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.streams:
        done = measure_streams(options.set, options.streams, options.seconds, options.recordings)
        if options.json:
            print(json.dumps([dataclasses.asdict(one) for one in done], indent=2))
        return 0
    index = (
        open_index(options.volumes) if options.volumes else index_folder(options.set / "refs")[0]
    )
    warm()
    if options.hours:
        measure_hours(options.set, index, options.hours)
        return 0
    figures = measure_answers(options.set, index, options.clips)
    if options.json:
        print(json.dumps(figures, indent=2))
        return 0
    for name, value in figures.items():
        print(f"{name:<36}{value if isinstance(value, str | int) else f'{value:.1f}'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
