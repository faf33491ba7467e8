"""What is kept of a clip explains its matches as the clip itself does."""

import dataclasses

import numpy as np
import pytest
from tests.songs import cut, noise, song

from soundhash_engine import (
    PARAMS,
    CorruptFingerprint,
    Index,
    ParamsMismatch,
    Snapshot,
    explain,
    extract,
    join,
    match,
)
from soundhash_engine.clip_parts import (
    ClipPart,
    choose_parts,
    decode_part,
    encode_part,
    explain_parts,
)
from soundhash_engine.landmarks import query_features

CLIPS = {
    "clean": cut(song(60.0, 2), 17.3, 8.0),
    "noisy": cut(song(60.0, 2), 17.3, 10.0) + noise(10.0, 3, 0.1),
    "faster": cut(song(60.0, 2, tempo=1.08, pitch=1.08), 15.0, 5.0),
    "long": cut(song(60.0, 2), 7.3, 40.0) + noise(40.0, 4, 0.05),
}


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    index = Index()
    index.apply([(i, 1, join(extract(song(60.0, i)))) for i in range(1, 5)])
    return index.snapshot()


@pytest.mark.parametrize("name", CLIPS)
def test_what_is_kept_says_what_the_clip_says(snapshot: Snapshot, name: str) -> None:
    clip = CLIPS[name].astype(np.float32)
    found = match(snapshot, clip).matches[0]
    blobs = [encode_part(part) for part in choose_parts(snapshot, clip, [found], most=8)]
    assert len(blobs) == 1
    assert len(blobs[0]) < 5500 * min(12.0, clip.size / 8000)
    of_clip = explain(snapshot, clip, found)
    of_kept = explain_parts(snapshot, map(decode_part, blobs), found)
    assert of_kept.place.score == pytest.approx(found.score, abs=0.6)
    assert of_kept.place.evidence.coverage == pytest.approx(
        of_clip.place.evidence.coverage, abs=0.1
    )
    assert of_kept.place.recording_id == 2
    if name != "long":
        assert np.array_equal(of_kept.clip.time_s, of_clip.clip.time_s)
        assert np.array_equal(of_kept.aligned.recording, of_clip.aligned.recording)


def test_each_match_keeps_its_own_part(snapshot: Snapshot) -> None:
    clip = np.concatenate([cut(song(60.0, i), 20.0, 15.0) for i in (1, 2, 3)])
    found = match(snapshot, clip).matches
    assert {one.recording_id for one in found} == {1, 2, 3}
    parts = choose_parts(snapshot, clip, found, most=8)
    assert len(parts) == 3
    for one in found:
        assert explain_parts(snapshot, parts, one).place.score > 5.0
    assert len(choose_parts(snapshot, clip, found, most=2)) == 2


def test_the_end_of_a_stream_is_enough(snapshot: Snapshot) -> None:
    """Only the last seconds are at hand, told in the stream's time."""
    clip = cut(song(60.0, 2), 5.0, 40.0)
    found = match(snapshot, clip).matches[0]
    (part,) = choose_parts(snapshot, clip[20 * 8000 :], [found], most=8, begin_s=20.0)
    assert part.begin_s >= 20.0
    assert explain_parts(snapshot, [part], found).place.score == pytest.approx(found.score, abs=3.0)


def test_what_cannot_be_explained_is_told(snapshot: Snapshot) -> None:
    clip = CLIPS["clean"]
    found = match(snapshot, clip).matches[0]
    parts = choose_parts(snapshot, clip, [found], most=8)
    gone = snapshot.without([2])
    assert choose_parts(gone, clip, [found], most=8) == []
    with pytest.raises(ValueError, match="not in the snapshot"):
        explain_parts(gone, parts, found)
    later = dataclasses.replace(found, clip_start_s=100.0, clip_end_s=105.0)
    with pytest.raises(ValueError, match="not within"):
        explain_parts(snapshot, parts, later)


def test_bytes_are_checked() -> None:
    features = query_features(song(3.0, 1))
    blob = encode_part(ClipPart(1.5, features))
    again = decode_part(blob)
    assert again.begin_s == 1.5
    assert again.features.n_samples == features.n_samples
    assert again.features.landmarks == features.landmarks
    assert np.abs(again.features.contrast - features.contrast).max() <= 0.2501
    for damaged in (b"", blob[:-1], blob[:40] + b"x" + blob[41:], b"\xa1" + blob[1:]):
        with pytest.raises(CorruptFingerprint):
            decode_part(damaged)
    with pytest.raises(ParamsMismatch):
        decode_part(blob, dataclasses.replace(PARAMS, min_peak_contrast_neper=0.5))
