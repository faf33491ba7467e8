"""Two stored fingerprints side by side."""

import numpy as np
import pytest
from tests.songs import noise, song

from soundhash_engine import SilentAudio, compare, extract, join


def test_a_recording_is_itself() -> None:
    whole = join(extract(song(30.0, 1)))
    same = compare(whole, whole)
    assert same.confidence > 0.99
    assert same.offset_s == pytest.approx(0.0, abs=0.02)
    assert same.speed == same.pitch == 1.0
    assert same.correlation > 0.95
    assert same.vector_cosine == pytest.approx(1.0, abs=1e-5)
    assert len(same.passages) == 1
    assert same.passages[0].video_end_s == pytest.approx(30.0, abs=0.3)


def test_an_excerpt_is_found_where_it_begins_and_how_fast_it_plays() -> None:
    whole = join(extract(song(40.0, 2)))
    part = join(extract(song(15.0, 2, tempo=1.06, pitch=1.06, start_s=11.0)))
    found = compare(whole, part)
    assert found.offset_s == pytest.approx(11.0, abs=0.1)
    assert found.speed == pytest.approx(1.06, rel=0.005)
    assert found.pitch == pytest.approx(1.06, rel=0.005)
    assert found.distance < 1.0


def test_shared_passages_have_ranges() -> None:
    first = join(extract(np.concatenate([song(12.0, 3), song(14.0, 4)])))
    second = join(extract(np.concatenate([noise(9.0, 1), song(14.0, 4)])))
    found = compare(first, second)
    assert len(found.passages) == 1
    passage = found.passages[0]
    assert passage.clip_start_s == pytest.approx(9.0, abs=0.8)
    assert passage.clip_end_s == pytest.approx(23.0, abs=0.8)
    assert found.offset_s == pytest.approx(3.0, abs=0.1)


def test_strangers_share_nothing() -> None:
    found = compare(join(extract(song(20.0, 5))), join(extract(song(20.0, 6))))
    assert found.passages == ()
    assert found.confidence == 0.0
    assert found.vector_cosine < 0.99


def test_silence_cannot_be_compared() -> None:
    silent = join(extract(np.zeros(40_000, np.float32)))
    with pytest.raises(SilentAudio):
        compare(silent, join(extract(song(5.0, 1))))
