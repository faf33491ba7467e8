"""The evaluation measures what it says, and the engine's recall does not collapse."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal
from tests.bench.peers.__main__ import markdown, measure
from tests.bench.peers.audfprint import Audfprint
from tests.bench.peers.base import Answer, UnavailableError
from tests.bench.peers.chromaprint import Chromaprint
from tests.bench.peers.ours import SoundHash
from tests.eval import history, report
from tests.eval.audio import RATE_HZ, coded, read_wav, write_wav
from tests.eval.build import build, made_voice
from tests.eval.ceiling import Ceiling, Prober, shares
from tests.eval.changes import Material, mixed, rms
from tests.eval.data import Query, Repeats, index_folder, read_queries
from tests.eval.degrade import CONDITIONS
from tests.eval.figures import Outcome, at_false_rate, bounds, reliability, summarise, sweep
from tests.eval.run import Examiner, judge, run
from tests.songs import song

from soundhash_engine.score import PUBLISH_CONFIDENCE

GUARDED = ("clean", "opus_24", "voice_0", "pink_5", "speed_1.05", "tempo_1.10", "pitch_+1")
GUARDED_TOO = ("room_small", "nightcore_1.25", "dropouts", "tempo_0.94_pitch_-1", "wow_flutter")


@pytest.fixture(scope="module")
def music() -> NDArray[np.float32]:
    return np.asarray(signal.resample_poly(song(5.0, 3), 441, 80), np.float32)


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight songs by two makers, five of them indexed, under twelve conditions."""
    root = tmp_path_factory.mktemp("eval")
    folders = [root / "maker-a", root / "maker-b"]
    for i, folder in enumerate(folders):
        folder.mkdir()
        for k in range(4):
            write_wav(folder / f"song-{k}.wav", song(40.0, 10 * i + k), 8000)
    conditions = [
        dataclasses.replace(CONDITIONS[name], lengths_s=(5.0,)) for name in (*GUARDED, *GUARDED_TOO)
    ]
    build(
        root / "set",
        folders,
        hours=1.0,
        counts={"prepared": 2, "further": 2, "unindexed": 1},
        conditions=conditions,
        processes=1,
    )
    return root / "set"


def onsets(audio: NDArray[np.float32], speed: float, n: int) -> NDArray[np.float64]:
    """Rising energy at 250 frames a second, in the time of the unchanged audio."""
    pcm = signal.resample_poly(audio, 80, 441)
    _, _, frames = signal.stft(pcm, 8000, nperseg=256, noverlap=224)
    rise = np.diff(np.log(np.abs(frames) ** 2 + 1e-4), axis=1).clip(0.0).sum(axis=0)
    out = np.interp(np.arange(n) / speed, np.arange(rise.size), rise)
    centred: NDArray[np.float64] = out - out.mean()
    return centred


@pytest.mark.parametrize("name", sorted(CONDITIONS))
def test_a_condition_keeps_its_promise(name: str, music: NDArray[np.float32]) -> None:
    condition = CONDITIONS[name]
    silence = Material(voice=np.zeros(10, np.float32), music=np.zeros(10, np.float32))
    voice = Material(voice=made_voice(1, 5.0), music=np.roll(music[::-1], 9999))
    covers = "voice_" in name or name in {"reaction", "crowd_0", "applause_0", "hall_crowd"}
    changed = condition.step(music, np.random.default_rng(1), silence if covers else voice)
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert changed.size * condition.speed == pytest.approx(music.size, rel=0.01)
    again = condition.step(music, np.random.default_rng(1), silence if covers else voice)
    assert np.array_equal(changed, again)
    if name in {"applause_0", "pink_-5", "brown_-5", "vinyl", "hall_crowd"}:
        return  # the onsets of what lies on top are stronger than the clip's
    n = 1200
    before, after = onsets(music, 1.0, n), onsets(changed, condition.speed, n)
    likeness = signal.correlate(after, before)
    lag_ms = 4.0 * (int(np.argmax(likeness)) - (n - 1))
    assert abs(lag_ms) <= 25.0


def test_codecs_do_not_shift(music: NDArray[np.float32]) -> None:
    for codec, bit_rate, rate_hz in (
        ("libmp3lame", 32_000, 22_050),
        ("aac", 64_000, 44_100),
        ("libopus", 24_000, 48_000),
        ("vorbis", 64_000, 44_100),
        ("libopencore_amrnb", 7_950, 8_000),
    ):
        out = coded(music, codec, bit_rate, rate_hz)
        assert out.size == music.size
        likeness = signal.correlate(out, music, method="fft")
        assert abs(int(np.argmax(likeness)) - (music.size - 1)) <= RATE_HZ // 500


def test_mixing_keeps_the_ratio(music: NDArray[np.float32]) -> None:
    other = np.random.default_rng(2).standard_normal(RATE_HZ)
    added = mixed(music, other, -5.0) - music
    assert 20 * np.log10(rms(music) / rms(added)) == pytest.approx(-5.0, abs=0.2)


def test_a_set_says_what_is_true(small_set: Path) -> None:
    queries = read_queries(small_set)
    indexed = {path.stem for path in (small_set / "refs").glob("*.wav")}
    left = {path.stem for path in (small_set / "negatives").glob("*.wav")}
    assert len(indexed) >= 4
    assert not indexed & left
    assert {q.track for q in queries if q.kind != "negative"} <= indexed
    assert {q.source for q in queries if q.kind == "negative"} <= left
    assert len({q.path for q in queries}) == len(queries)
    assert {q.condition for q in queries} == {*GUARDED, *GUARDED_TOO}
    inverse = next(q for q in queries if q.condition == "clean" and q.track)
    clip = read_wav(inverse.path)
    recording = read_wav(small_set / "refs" / f"{inverse.track}.wav")
    at = round(inverse.offset_s * RATE_HZ)
    piece = recording[at : at + clip.size]
    likeness = signal.correlate(clip, piece, method="fft")
    assert abs(int(np.argmax(likeness)) - (piece.size - 1)) <= RATE_HZ // 500


def test_recall_does_not_collapse(small_set: Path) -> None:
    index, names = index_folder(small_set / "refs")
    examiner = Examiner(index, names, Repeats(small_set / "refs"))
    outcomes = run(examiner, read_queries(small_set))
    summary = summarise(outcomes, PUBLISH_CONFIDENCE)
    assert summary["all"]["clips"] >= 20
    assert summary["all"]["recall_percent"] >= 95.0
    assert summary["all"]["wrong"] == 0
    assert summary["unindexed"]["clips"] >= 8
    assert summary["unindexed"]["false"] == 0
    assert summary["all"]["offset_error_ms"]["median"] <= 10.0
    assert summary["all"]["speed_error_percent"]["p95"] <= 0.5


def query(kind: str = "music", **changes: Any) -> Query:
    given = Query(Path("a.wav"), "clean", 5.0, kind, "" if kind == "negative" else "a", 7.0, 1.0)
    return dataclasses.replace(given, source="a", source_offset_s=7.0, **changes)


def outcome(verdict: str, score: float, confidence: float, kind: str = "music") -> Outcome:
    track = "" if verdict in {"missed", "silent"} else "a"
    given = confidence >= 0.5
    return Outcome(
        query(kind), verdict, track, 7.0, score, confidence, 1.0, 1.0, given and bool(track), 0.01
    )


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> Repeats:
    """Recording a plays four seconds again and again; b the same; c something else."""
    root = tmp_path_factory.mktemp("loops")
    for folder in ("refs", "negatives"):
        (root / folder).mkdir()
    for folder, name, seed in (("refs", "a", 5), ("refs", "b", 5), ("negatives", "c", 6)):
        write_wav(root / folder / f"{name}.wav", np.tile(song(4.0, seed), 8), 8000)
    return Repeats(root / "refs")


@pytest.mark.parametrize(
    ("kind", "track", "offset_s", "verdict"),
    [
        ("music", "a", 7.4, "hit"),
        ("music", "a", 11.1, "repeat"),
        ("music", "a", 9.0, "offset"),
        ("music", "b", 15.0, "twin"),
        ("music", "c", 7.0, "wrong"),
        ("music", "", 0.0, "missed"),
        ("negative", "b", 7.0, "shared"),
        ("negative", "b", 9.0, "false"),
        ("negative", "", 0.0, "silent"),
    ],
)
def test_verdicts(loops: Repeats, kind: str, track: str, offset_s: float, verdict: str) -> None:
    assert judge(query(kind), track, offset_s, loops) == verdict


def test_recall_at_a_false_rate_is_the_best_threshold() -> None:
    right = [outcome("hit", score, 0.9) for score in (9.0, 8.0, 4.0, 2.0)]
    absent = [outcome("false", 5.0, 0.8, "negative"), outcome("false", 3.0, 0.4, "negative")]
    absent += [outcome("shared", 8.5, 0.9, "negative"), outcome("silent", 0.0, 0.0, "negative")]
    points = sweep([*right, outcome("wrong", 1.0, 0.1), *absent])
    assert at_false_rate(points, 0.0) == {"score": 8.0, "recall_percent": 40.0}
    assert at_false_rate(points, 1 / 3) == {"score": 4.0, "recall_percent": 60.0}
    assert at_false_rate(points, 1.0) == {"score": 2.0, "recall_percent": 80.0}


def test_bounds_are_clopper_pearsons() -> None:
    # Rule of three: none of n has an upper bound near 3.7 / n at 95 % two-sided.
    assert bounds(0, 5000) == pytest.approx((0.0, 3.689 / 5000), rel=0.01)
    assert bounds(5, 10) == pytest.approx((0.1871, 0.8129), abs=1e-3)
    assert bounds(0, 0) == (0.0, 1.0)


def test_reliability_weighs_both_halves_equally() -> None:
    right = [outcome("hit", 3.0, 0.55) for _ in range(10)]
    false = [outcome("false", 3.0, 0.55, "negative")]
    # One of 5 unindexed clips weighs as much as two of 10 indexed ones.
    rows = reliability([*right, *false, *[outcome("silent", 0.0, 0.0, "negative")] * 4])
    assert len(rows) == 1
    assert rows[0]["answers"] == 11
    assert rows[0]["right"] == pytest.approx(10 / 12)


def test_the_report_is_reproducible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Sequence[Outcome] = [
        *(outcome("hit", 5.0 + i, 0.9 + i / 200) for i in range(12)),
        *(outcome("silent", 0.0, 0.0, "negative") for _ in range(9)),
        outcome("false", 2.0, 0.3, "negative"),
    ]
    summary = summarise(answers, PUBLISH_CONFIDENCE) | {"hours": 1.5}
    (tmp_path / "result-small.json").write_text(json.dumps(summary))
    (tmp_path / "queries.csv").write_text("file\n")
    runs = tmp_path / "history.jsonl"
    history.append(runs, tmp_path, summary)
    assert history.read(runs)[0]["recall"] == 100.0
    monkeypatch.setattr(report, "HISTORY", runs)
    for name in ("one", "two"):
        report.write(tmp_path, tmp_path / name)
    pages = [(tmp_path / name / "accuracy.md").read_text() for name in ("one", "two")]
    assert pages[0] == pages[1]
    assert "| **all** | 12 | 100.0 | 100.0 (73.5 … 100.0) |" in pages[0]
    for picture in (tmp_path / "one" / "accuracy").glob("*.svg"):
        assert picture.read_text() == (tmp_path / "two/accuracy" / picture.name).read_text()
        assert f"accuracy/{picture.name}" in pages[0]


class Guess:
    """Answers every clip with the first recording, always equally sure."""

    name, version, note = "guess", "1", "no idea"

    def __init__(self) -> None:
        self._names: list[str] = []

    def index(self, name: str, path: Path) -> None:
        assert path.exists()
        self._names.append(name)

    def ask(self, path: Path) -> Answer | None:
        return Answer(self._names[0], 0.0, 1.0)


def test_peers_are_judged_by_their_own_best_threshold(small_set: Path) -> None:
    queries = read_queries(small_set)[::4]
    rows = [measure(peer, small_set, queries) for peer in (SoundHash(), Guess())]
    assert {row["clips"] for row in rows} == {rows[0]["clips"]}
    ours, guess = (row["recall_percent"]["0"] for row in rows)
    assert ours >= 90.0
    assert guess == 0.0
    table = markdown(rows, {"dejavu": "it cannot be imported"}, "Recall, %.")
    assert table.index("SoundHash this commit") < table.index("| guess 1 | 0.0 |")
    assert "Not run: dejavu (it cannot be imported)." in table


def test_an_absent_peer_says_what_would_help(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("AUDFPRINT", "FPCALC"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UnavailableError, match="AUDFPRINT"):
        Audfprint()
    with pytest.raises(UnavailableError, match="libchromaprint-tools"):
        Chromaprint()


def test_the_ceiling_tells_evidence_from_search(small_set: Path) -> None:
    prober = Prober(small_set)
    clips = [prober(query) for query in read_queries(small_set) if query.track]
    assert clips and all(clip is not None for clip in clips)
    share = shares([clip for clip in clips if clip is not None], prober.least)
    assert share["clips"] == len(clips)
    assert 0.0 < share["found"] <= min(share["placed"], share["looked_at"]) <= 100.0
    lost = Ceiling("noise", 3.0, told=5.0, searched=None, found=False)
    faint = Ceiling("noise", 3.0, told=1.0, searched=1.0, found=False)
    assert shares([lost, faint], 3.0) == {
        "clips": 2,
        "placed": 50.0,
        "looked_at": 50.0,
        "found": 0.0,
    }


def test_twins_are_no_false_music(tmp_path: Path) -> None:
    (tmp_path / "refs").mkdir()
    (tmp_path / "twins.txt").write_text("# why\na b\n")
    known = Repeats(tmp_path / "refs")
    asked = dataclasses.replace(query("negative"), source="a")
    assert judge(asked, "b", 0.0, known) == "shared"
    assert judge(asked, "c", 0.0, known) == "false"
    assert judge(dataclasses.replace(asked, source="warzone2100__menu"), "x", 0.0, known) == "false"
    assert "warzone2100__menu_enhanced" in known.twins["warzone2100__menu"]
