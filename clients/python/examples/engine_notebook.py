"""The engine as a library, cell by cell: index, match, explain, keep, listen.

    python clients/python/examples/engine_notebook.py

Needs ``soundhash[engine]`` and nothing else: no server, no database. Editors that know ``# %%``
cells (VS Code, PyCharm, Spyder, Jupytext) open it as a notebook.
"""

# %% Eight songs that nobody has heard: plucked notes at random, mono, at 8 kHz.
import json
import tempfile
from pathlib import Path

import numpy as np

import soundhash_engine as engine

RATE = engine.SAMPLE_RATE_HZ


def pluck(key: int) -> np.ndarray:
    """A note a second long, with three harmonics."""
    t = np.arange(RATE) / RATE
    hz = 160.0 * 2.0 ** (key / 12)
    waves = [np.sin(2 * np.pi * hz * k * t) / k for k in (1, 2, 3) if hz * k < RATE / 2]
    return 0.1 * np.sum(waves, axis=0) * np.exp(-7 * t)


NOTES = [pluck(key) for key in range(40)]


def make_song(seed: int, duration_s: float = 45.0) -> np.ndarray:
    """Fourteen notes a second over a little noise."""
    random = np.random.default_rng(seed)
    song = 0.002 * random.standard_normal(round(duration_s * RATE))
    for start_s in np.cumsum(random.uniform(0.02, 0.12, round(14 * duration_s))):
        room = song[round(start_s * RATE) :][:RATE]
        room += random.uniform(0.3, 1.0) * NOTES[random.integers(40)][: room.size]
    return song.astype(np.float32)


songs = {number: make_song(number) for number in range(1, 9)}
print(f"{len(songs)} songs, {sum(s.size for s in songs.values()) / RATE:.0f} s")

# %% Fingerprint them. Segments are what a database would keep; joined, they are a recording.
# (The first call loads the compiled kernels; the very first compiles them, half a minute.)
fingerprints = {}
for number, pcm in songs.items():
    segments = engine.extract(pcm)
    fingerprints[number] = engine.join(segments)
stored = sum(len(s.landmarks) + len(s.descriptor) for s in engine.extract(songs[1]))
print(f"{len(fingerprints[1].landmarks)} landmarks and {stored / 1000:.0f} kB a song")

# %% Put them into an index. An id is a number of yours; a higher revision replaces a lower one.
index = engine.Index()
index.apply([(number, 1, made) for number, made in fingerprints.items()])
print(f"{index.status().recordings} recordings, {3600 * index.status().hours:.0f} s")

# %% Cut eight seconds out of one, play them 6 % faster and pour noise over them.
SPEED, START_S = 1.06, 21.5
piece = songs[5][round(START_S * RATE) : round((START_S + 8 * SPEED) * RATE)]
clip = np.interp(np.arange(8 * RATE) * SPEED, np.arange(piece.size), piece)
noise = np.random.default_rng(0).standard_normal(clip.size)
clip = (clip + 0.5 * clip.std() * noise).astype(np.float32)

# %% Ask where it is from. A snapshot never changes, however the index does.
snapshot = index.snapshot()
result = engine.match(snapshot, clip)
for found in result.matches:
    print(
        f"recording {found.recording_id} from {found.video_start_s:.2f} s,"
        f" speed {found.speed:.3f}, confidence {found.confidence:.1%}"
    )
best = result.matches[0]
assert best.recording_id == 5 and abs(best.video_start_s - START_S) < 0.1

# %% What is not there is not found; that is an answer, not an error.
stranger = make_song(99)[: 8 * RATE]
print("a stranger:", engine.match(snapshot, stranger).matches or "no match")
try:
    engine.match(snapshot, np.zeros(8 * RATE, np.float32))
except engine.EngineError as error:
    print(f"silence: {error.reason}: {error.message}")

# %% Why? The score is a sum; landmarks lie on landmarks; votes stand alone at one offset.
why = engine.explain(snapshot, clip, best)
for term in why.place.contributions:
    print(f"  {term.name:<18}{term.value:8.2f} × {term.weight:7.3f} = {term.contribution:7.2f}")
print(f"  {'score':<18}{why.place.score:28.2f}")
print(
    f"{len(why.aligned)} of the clip's {len(why.clip)} landmarks lie on the recording's,"
    f" to {1000 * np.median(np.abs(why.aligned.residual_s)):.1f} ms"
)
peak = int(np.argmax(why.offsets.votes))
print(
    f"{why.offsets.votes[peak]} pairs agree at {why.offsets.offset_s[peak]:+.2f} s,"
    f" {why.offsets.background:.1f} elsewhere"
)
print("patches", why.patches.clip.shape, "beside", why.patches.recording.shape)
if why.runners_up:
    second = why.runners_up[0]
    print(f"next best: recording {second.recording_id}, score {second.score:.2f}")

# %% Draw it, where matplotlib is at hand.
try:
    from matplotlib.figure import Figure
except ImportError:
    print("no matplotlib, no picture")
else:
    figure = Figure(figsize=(10, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1)
    there = why.place.video_start_s + best.speed * (why.clip.time_s - why.place.clip_start_s)
    top.plot(why.recording.time_s, why.recording.frequency_hz, "s", mfc="none", label="recording")
    top.plot(there, why.clip.frequency_hz / best.pitch, ".", label="clip, laid on it")
    top.set(xlabel="time in the recording, s", ylabel="Hz", yscale="log")
    top.legend()
    bottom.bar(why.offsets.offset_s, why.offsets.votes, width=0.048)
    bottom.set(xlabel="offset from the place, s", ylabel="pairs that agree")

# %% Keep the index: arrays and a little JSON, wherever you like. Mapped, it is there at once.
with tempfile.TemporaryDirectory() as folder:
    volume = index.seal(full=True)
    assert volume is not None
    for name, array in volume.arrays().items():
        np.save(Path(folder, f"{name}.npy"), array)
    Path(folder, "meta.json").write_text(json.dumps(volume.meta()))

    meta = json.loads(Path(folder, "meta.json").read_text())
    arrays = {p.stem: np.load(p, mmap_mode="r") for p in Path(folder).glob("*.npy")}
    again = engine.Index()
    again.load([engine.Volume.from_arrays(meta, arrays)])
    same = engine.match(again.snapshot(), clip).matches[0]
    print(f"from disk: recording {same.recording_id} from {same.video_start_s:.2f} s")
    assert same == best
    size_bytes = sum(p.stat().st_size for p in Path(folder).iterdir())
    print(f"{size_bytes / 1e6 / index.status().hours:.1f} MB an hour")
    del again, arrays

# %% Change it while it is in use: what is removed is gone from the next snapshot on.
index.remove([5])
print("removed:", engine.match(index.snapshot(), clip).matches or "no match")
index.apply([(5, 2, fingerprints[5])])
assert engine.match(index.snapshot(), clip).matches[0].recording_id == 5

# %% Listen: two songs and a pause, as a microphone would give them, a quarter second at a time.
quiet = (0.002 * np.random.default_rng(1).standard_normal(6 * RATE)).astype(np.float32)
broadcast = np.concatenate([songs[2][10 * RATE : 22 * RATE], quiet, songs[7][: 12 * RATE]])
live = engine.LiveMatcher()
heard: list[engine.Provisional | engine.Final] = []
for at in range(0, broadcast.size, RATE // 4):
    live.push(broadcast[at : at + RATE // 4])
    heard += live.step(index.snapshot())
heard += live.finish(index.snapshot())
finals = [event.match for event in heard if isinstance(event, engine.Final)]
for played in finals:
    print(
        f"{played.clip_start_s:5.1f} … {played.clip_end_s:4.1f} s:"
        f" recording {played.recording_id} from {played.video_start_s:.1f} s"
    )
assert [played.recording_id for played in finals] == [2, 7]

# %% Two recordings side by side, without an index.
medley = np.concatenate([make_song(50, 12.0), songs[3][8 * RATE : 28 * RATE]])
relation = engine.compare(fingerprints[3], engine.join(engine.extract(medley)))
for passage in relation.passages:
    print(
        f"{passage.clip_start_s:.1f} … {passage.clip_end_s:.1f} s of the medley is"
        f" {passage.video_start_s:.1f} … {passage.video_end_s:.1f} s of song 3"
    )
assert len(relation.passages) == 1
