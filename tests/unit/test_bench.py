"""`soundhash bench` on made-up songs: what it measures is so, what it draws is a picture."""

import dataclasses
import functools
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from tests.media import encode
from tests.songs import cut, noise, song

from soundhash_engine import SAMPLE_RATE_HZ, Index, Snapshot, Volume, extract, join, match
from soundhash_server.__main__ import main
from soundhash_server.bench import recordings
from soundhash_server.bench.catalogue import FIRST_ID, Catalogue
from soundhash_server.bench.chart import chart
from soundhash_server.bench.degrade import CONDITIONS, Condition
from soundhash_server.bench.figures import table
from soundhash_server.bench.measure import KINDS, Recall, Report, measure
from soundhash_server.store import volumes

CLIP_S = 5.0


@functools.cache
def tune(seed: int) -> np.ndarray:
    """Half a minute of a song."""
    return song(30.0, seed)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten songs, one of them too short, and a file that is no audio."""
    folder = tmp_path_factory.mktemp("media")
    for seed in range(1, 11):
        (folder / f"{seed:02}.wav").write_bytes(encode(tune(seed)[: 72_000 if seed == 3 else None]))
    (folder / "11.mp3").write_bytes(b"no audio" * 100)
    (folder / "cover.jpg").write_bytes(b"a picture")
    return folder


@pytest.fixture(scope="module")
def material(media: Path) -> recordings.Material:
    return recordings.read(recordings.find([media], 100), 4, CLIP_S)


@pytest.fixture(scope="module")
def two_songs() -> Snapshot:
    index = Index()
    index.apply([(seed, 1, join(extract(tune(seed)))) for seed in (1, 2)])
    return index.snapshot()


@pytest.fixture(scope="module")
def report(material: recordings.Material, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return measure(material, [0.25, 0.05, 0.6], 2, CLIP_S, tmp_path_factory.mktemp("index"))


def test_media_are_found(media: Path, tmp_path: Path) -> None:
    names = [path.name for path in recordings.find([media], 100)]
    assert names == [*(f"{n:02}.wav" for n in range(1, 11)), "11.mp3"]
    assert [p.name for p in recordings.find([media], 3)] == ["01.wav", "06.wav", "11.mp3"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        recordings.find([tmp_path / "nowhere"], 3)


def test_clips_are_what_they_say(material: recordings.Material, media: Path) -> None:
    # Ten files of which nine are usable; every fifth is left out of the index.
    assert len(material.indexed) == 8
    assert list(material.clips) == [condition.name for condition in CONDITIONS]
    assert all(len(clips) == 4 for clips in material.clips.values())
    assert material.decode_s > 0.0 and material.audio_s == pytest.approx(9 * 30.0, rel=0.01)
    usable = [n for n in range(1, 11) if n != 3]
    indexed = [n for place, n in enumerate(usable) if place % 5 != 4]
    for clip in material.clips["clean"]:
        whole = tune(indexed[clip.recording - FIRST_ID])
        same = cut(whole, clip.start_s, CLIP_S)
        assert clip.pcm.shape == same.shape
        # The file is 16-bit, the song is not.
        assert np.abs(clip.pcm - same).max() < 1e-3
    for clips in material.clips.values():
        for clip in clips:
            assert clip.pcm.dtype == np.float32
            assert abs(clip.pcm.size - CLIP_S * SAMPLE_RATE_HZ) < 0.2 * SAMPLE_RATE_HZ
    again = recordings.read(recordings.find([media], 100), 4, CLIP_S)
    for name, clips in material.clips.items():
        for one, other in zip(clips, again.clips[name], strict=True):
            np.testing.assert_array_equal(one.pcm, other.pcm)


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
def test_each_condition_changes_the_clip_and_leaves_it_recognisable(
    condition: Condition, two_songs: Snapshot
) -> None:
    long = cut(tune(2), 12.0, CLIP_S * condition.speed)
    changed = condition.change(long, noise(CLIP_S * condition.speed, 5))
    levels = [float(np.sqrt(np.mean(one**2))) for one in (long, changed)]
    assert levels[1] == pytest.approx(levels[0], rel=0.35)
    if condition.kind != "clean":
        n = min(changed.size, long.size)
        assert np.corrcoef(changed[:n], long[:n])[0, 1] < 0.99999
    (found,) = match(two_songs, np.ascontiguousarray(changed, np.float32)).matches
    assert found.recording_id == 2
    assert found.speed == pytest.approx(condition.speed, rel=0.01)


def test_the_catalogue_grows_and_stays_one_volume(
    material: recordings.Material, tmp_path: Path
) -> None:
    catalogue = Catalogue(tmp_path, material.indexed)
    first = catalogue.grow(0.0)
    assert first.hours == pytest.approx(8 * 30.0 / 3600, rel=0.01)
    small = catalogue.snapshot()
    second = catalogue.grow(0.4)
    assert 0.4 <= second.hours < 0.6
    assert second.added_hours == pytest.approx(second.hours - first.hours)
    assert len(catalogue.snapshot().volumes) == 1 and len(list(tmp_path.iterdir())) == 1
    on_disk = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert first.disk_bytes < second.disk_bytes == pytest.approx(on_disk, rel=0.01)
    assert second.index_bytes < second.disk_bytes
    clip = material.clips["clean"][0]
    for snapshot in (small, catalogue.snapshot()):
        assert match(snapshot, clip.pcm).matches[0].recording_id == clip.recording


def test_what_is_measured(report: Report, material: recordings.Material) -> None:
    hours = [size.growth.hours for size in report.sizes]
    assert hours == sorted(hours) and len(hours) == 3
    assert hours[0] == pytest.approx(report.indexed_hours) and hours[-1] >= 0.6
    for size in report.sizes:
        assert list(size.latency) == list(KINDS)
        assert all(0 < one.median_ms <= one.p95_ms for one in size.latency.values())
        assert size.recall["clean"] == Recall(4, 4)
        assert size.recall["MP3, 32 kbit/s"].found >= 3
        assert (size.answered, size.absent) == (0, 4)
        assert list(size.throughput) == [1, 2]
    assert report.sizes[-1].growth.index_bytes > 4 * report.sizes[0].growth.index_bytes
    assert report.ingest_x < min(report.extract_x, report.decode_x or 0.0)


def test_a_wrong_place_does_not_count(material: recordings.Material, tmp_path: Path) -> None:
    moved = {
        name: tuple(dataclasses.replace(clip, start_s=clip.start_s + 2.0) for clip in clips)
        for name, clips in material.clips.items()
    }
    wrong = measure(dataclasses.replace(material, clips=moved), [0.01], 1, CLIP_S, tmp_path)
    assert wrong.sizes[0].recall["clean"].found <= 1


def test_bounds_of_a_share() -> None:
    assert Recall(10, 10).interval[1] == 1.0
    low, high = Recall(30, 40).interval
    # Wilson's interval, from its definition in tables.
    assert (low, high) == pytest.approx((0.598, 0.858), abs=0.002)


def test_the_picture_shows_every_figure(report: Report) -> None:
    drawn = ElementTree.fromstring(chart(report))
    texts = [node.text or "" for node in drawn.iter("{http://www.w3.org/2000/svg}text")]
    for condition in CONDITIONS:
        assert f"found: {condition.name}" in texts
    for kind in KINDS:
        assert any(text.startswith(f"{kind} ") and text.endswith(" ms") for text in texts)
    width, height = float(drawn.attrib["width"]), float(drawn.attrib["height"])
    for node in drawn.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(node.attrib["x"]) < width and 0 < float(node.attrib["y"]) < height
    circles = list(drawn.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == len(report.sizes) * (len(KINDS) + len(KINDS) - 1)
    # Larger catalogues lie further to the right.
    xs = [float(circle.attrib["cx"]) for circle in circles[: len(report.sizes)]]
    assert xs == sorted(xs) and len(set(xs)) == len(xs)
    assert chart(dataclasses.replace(report, sizes=report.sizes[:1])).startswith("<svg")


def test_the_table_has_a_column_a_size(report: Report) -> None:
    lines = table(report).splitlines()
    assert len(lines[3].split()) == 2 * len(report.sizes)
    assert any(line.startswith("found: clean") and line.count("100%") == 3 for line in lines)


def test_a_catalogue_to_begin_with(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of the recordings lie in a platform's index already, the ones left out as well."""
    known = [join(extract(tune(seed))) for seed in (*range(1, 11), 60, 61)]
    volume = Volume.build([(number, 1, made) for number, made in enumerate(known, 1)])
    volumes.save(tmp_path / "data/index/v00000001", volume.meta(), volume.arrays())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    plot = str(tmp_path / "out.svg")
    options = ["--catalogue", "--clips", "3", "--plot", plot, "--callers", "1", "--json"]
    options += ["--hours", "0.3", "--data-dir", str(tmp_path / "data")]
    assert main(["bench", *options, "--", str(media)]) == 0
    theirs, filled = json.loads(capsys.readouterr().out)["sizes"]
    assert theirs["hours"] == pytest.approx((12 + 8) * 30.0 / 3600, rel=0.01)
    assert filled["hours"] >= 0.3
    for size in (theirs, filled):
        assert size["recall"]["clean"] == {"found": 3, "clips": 3}
        assert size["unindexed"] == {"answered": 0, "clips": 3}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    nothing = ["--catalogue", "--data-dir", str(tmp_path / "none"), "--plot", plot]
    assert main(["bench", *nothing, "--", str(media)]) == 1
    assert "no index in" in capsys.readouterr().err


def test_the_command(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "out.svg"
    options = ["--hours", "0.1", "--clips", "2", "--plot", str(plot), "--callers", "1"]
    assert main(["bench", *options, "--json", "--", str(media)]) == 0
    out, told = capsys.readouterr()
    figures = json.loads(out)
    assert figures["sizes"][0]["recall"]["clean"] == {"found": 2, "clips": 2}
    assert figures["sizes"][0]["clips_a_second"]["1"] > 0
    assert "11.mp3" in told and str(plot) in told
    assert plot.read_text().startswith("<svg")
    assert main(["bench", "--plot", str(plot), "--", str(tmp_path / "none")]) == 1
    assert "no such file" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["bench", "--", str(empty)]) == 1
    assert "no media" in capsys.readouterr().err
    (empty / "one.wav").write_bytes(encode(tune(1)))
    assert main(["bench", "--hours", "0.1", "--plot", str(plot), "--", str(empty)]) == 1
    assert "at least five recordings" in capsys.readouterr().err
