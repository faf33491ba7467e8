"""Why a match is a match: told by the same measurements that decided it."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from tests.songs import cut, noise, song

from soundhash_engine import (
    Explanation,
    Index,
    Match,
    SilentAudio,
    Snapshot,
    compare,
    explain,
    explain_comparison,
    extract,
    join,
    match,
)

WHOLE = song(40.0, 2)
BASE_OFFSET_S = 9.0


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """Songs 1 to 3; 7 is song 2 begun later, under noise: a twin."""
    twin = WHOLE[round(BASE_OFFSET_S * 8000) :] + noise(40.0 - BASE_OFFSET_S, 8, 0.08)
    recordings = {1: song(40.0, 1), 2: WHOLE, 3: song(40.0, 3), 7: twin}
    index = Index()
    index.apply([(i, 1, join(extract(pcm))) for i, pcm in recordings.items()])
    index.seal()
    return index.snapshot()


def answer(snapshot: Snapshot, clip: np.ndarray) -> Match:
    return match(snapshot, clip).matches[0]


CLIPS = {
    "clean": cut(WHOLE, 17.3, 5.0),
    "noisy": cut(WHOLE, 17.3, 5.0) + noise(5.0, 3, 0.05),
    "faster": cut(song(40.0, 2, tempo=1.08, pitch=1.08), 15.0, 5.0),
    "other pitch": cut(song(40.0, 2, pitch=0.93), 17.3, 6.0),
}


@pytest.fixture(scope="module", params=CLIPS.values(), ids=list(CLIPS))
def told(request: pytest.FixtureRequest, snapshot: Snapshot) -> tuple[Match, Explanation]:
    alone = snapshot.without([7])
    found = answer(alone, request.param)
    return found, explain(alone, request.param, found)


def test_the_contributions_make_the_score(told: tuple[Match, Explanation]) -> None:
    found, why = told
    terms = why.place.contributions
    assert sum(one.contribution for one in terms) == pytest.approx(why.place.score)
    assert all(one.contribution == one.weight * one.value for one in terms)
    assert len({one.name for one in terms}) == len(terms)
    assert why.place.score == pytest.approx(found.score, abs=0.01)
    assert why.place.confidence == pytest.approx(found.confidence, abs=0.001)
    # A clip under noise is as much the noisy twin as the song.
    assert why.place.recording_id == found.recording_id
    assert found.recording_id in (2, 7)
    assert why.place.video_start_s == pytest.approx(found.video_start_s, abs=0.01)
    assert (why.place.speed, why.place.pitch) == pytest.approx((found.speed, found.pitch))


def test_the_landmarks_lie_on_one_another(told: tuple[Match, Explanation]) -> None:
    found, why = told
    assert np.all(np.diff(why.clip.time_s) >= 0) and np.all(np.diff(why.recording.time_s) >= 0)
    assert why.clip.time_s[0] > 0 and why.clip.time_s[-1] < why.place.clip_end_s
    assert why.recording.time_s[0] >= why.place.video_start_s - 2.0
    assert why.recording.time_s[-1] <= why.place.video_end_s + 2.0
    aligned = why.aligned
    assert len(aligned) > 0.2 * len(why.clip)
    assert len(set(aligned.clip)) == len(set(aligned.recording)) == len(aligned)
    predicted_s = found.video_start_s + found.speed * (
        why.clip.time_s[aligned.clip] - found.clip_start_s
    )
    there_s = why.recording.time_s[aligned.recording]
    np.testing.assert_allclose(there_s - predicted_s, aligned.residual_s, atol=1e-9)
    ratio = why.clip.frequency_hz[aligned.clip] / why.recording.frequency_hz[aligned.recording]
    np.testing.assert_allclose(36 * np.log2(found.pitch / ratio), aligned.residual_bins, atol=1e-9)
    assert np.median(np.abs(aligned.residual_s)) < 0.012
    assert np.median(np.abs(aligned.residual_bins)) < 0.4


def test_the_votes_stand_alone_at_the_place(told: tuple[Match, Explanation]) -> None:
    _, why = told
    offsets = why.offsets
    assert offsets.votes.shape == offsets.offset_s.shape == offsets.possible.shape == (401,)
    best = int(np.argmax(offsets.votes))
    assert abs(offsets.offset_s[best]) <= 0.1
    assert offsets.votes[best] > 10 * offsets.background + 10
    assert why.place.evidence.votes >= offsets.votes[best]
    assert offsets.votes[~offsets.possible].sum() == 0


def test_the_patches_are_what_was_compared(told: tuple[Match, Explanation]) -> None:
    found, why = told
    patches = why.patches
    assert patches.clip.shape == patches.recording.shape
    assert patches.clip.shape == (patches.clip_time_s.size, patches.frequency_hz.size)
    np.testing.assert_allclose(np.diff(patches.recording_time_s), 0.064, atol=1e-9)
    np.testing.assert_allclose(np.diff(np.log2(patches.frequency_hz)), 1 / 12, atol=1e-9)
    assert np.abs(patches.clip.mean(axis=0)).max() < 1e-5
    alike = np.corrcoef(patches.clip.ravel(), patches.recording.ravel())[0, 1]
    # The descriptor may fit better 24 ms beside the place: that is what was counted.
    assert alike == pytest.approx(why.place.evidence.rp, abs=0.05)
    assert alike > 0.5
    covered = [block.covered for block in why.blocks]
    assert np.mean(covered) == pytest.approx(why.place.evidence.coverage, abs=1e-6)
    assert all(b.start_s < b.end_s and -1 <= b.correlation <= 1 for b in why.blocks)
    assert all(a.end_s == pytest.approx(b.start_s) for a, b in pairwise(why.blocks))
    assert why.blocks[0].start_s < found.clip_start_s + 0.3
    assert why.blocks[-1].end_s > found.clip_end_s - 0.3


def test_the_twin_is_the_runner_up(snapshot: Snapshot) -> None:
    found = answer(snapshot, CLIPS["clean"])
    twin, *others = explain(snapshot, CLIPS["clean"], found).runners_up
    assert twin.recording_id == 7
    assert twin.video_start_s == pytest.approx(17.3 - BASE_OFFSET_S, abs=0.05)
    assert 3.0 < twin.score < found.score
    assert all(one.score < 0.5 * twin.score for one in others)
    assert len(others) <= 2
    # Nothing else in the index is like it, and that is told too.
    alone = explain(snapshot.without([7]), CLIPS["clean"], found)
    assert all(one.score < 3.0 for one in alone.runners_up)


def test_a_wrong_place_has_nothing_to_show(snapshot: Snapshot) -> None:
    found = answer(snapshot, CLIPS["clean"])
    wrong = dataclasses.replace(
        found, video_start_s=found.video_start_s - 5.0, video_end_s=found.video_end_s - 5.0
    )
    why = explain(snapshot, CLIPS["clean"], wrong)
    assert why.place.score < 0.0
    assert why.offsets.votes[199:202].max() < 0.1 * max(1, why.offsets.votes.max())
    assert len(why.aligned) < 0.5 * len(explain(snapshot, CLIPS["clean"], found).aligned)
    assert sum(block.covered for block in why.blocks) < 0.5 * len(why.blocks)
    # What it should have been is the first that is better.
    assert why.runners_up[0].video_start_s == pytest.approx(17.3, abs=0.05)


def test_a_long_clip_is_told_window_by_window(snapshot: Snapshot) -> None:
    clip = np.concatenate([noise(8.0, 3), cut(song(40.0, 3), 5.0, 30.0), noise(4.0, 1)])
    found = answer(snapshot, clip)
    why = explain(snapshot, clip, found)
    assert why.place.recording_id == 3
    assert why.place.score == max(window.score for window in why.windows)
    assert len(why.windows) >= 6
    assert why.place.clip_start_s >= 8.0 and why.place.clip_end_s <= 38.0
    assert why.place.video_start_s == pytest.approx(why.place.clip_start_s - 3.0, abs=0.05)
    # A window half of noise says less than those within.
    outer = next(w for w in why.windows if w.start_s == 0.0)
    assert outer.score < why.place.score - 2.0


def test_a_long_clip_in_noise_is_told_where_it_convinces(snapshot: Snapshot) -> None:
    clip = cut(song(40.0, 3), 3.0, 30.0) + noise(30.0, 9, 0.7)
    found = answer(snapshot, clip)
    why = explain(snapshot, clip, found)
    assert found.recording_id == 3
    assert why.place.score == max(one.score for one in why.windows) >= found.score - 0.01
    assert list(why.windows) == sorted(why.windows, key=lambda one: (one.start_s, one.end_s))


def test_a_clip_that_begins_before_its_recording(snapshot: Snapshot) -> None:
    clip = np.concatenate([noise(3.0, 5, 0.01), cut(WHOLE, 0.0, 7.0)])
    found = answer(snapshot, clip)
    why = explain(snapshot, clip, found)
    assert why.place.score > found.score - 0.5
    lead_s = why.place.clip_start_s - why.place.video_start_s
    assert lead_s == pytest.approx(3.0, abs=0.05)


def test_the_same_question_has_the_same_explanation(snapshot: Snapshot) -> None:
    found = answer(snapshot, CLIPS["noisy"])
    first, second = (explain(snapshot, CLIPS["noisy"], found) for _ in range(2))
    assert first.place == second.place
    assert first.runners_up == second.runners_up and first.blocks == second.blocks
    for name in ("clip", "recording", "aligned", "offsets", "patches"):
        one, other = getattr(first, name), getattr(second, name)
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_what_cannot_be_explained(snapshot: Snapshot) -> None:
    clip = CLIPS["clean"]
    found = answer(snapshot, clip)
    with pytest.raises(ValueError, match="not in the snapshot"):
        explain(snapshot.without([2]), clip, found)
    late = dataclasses.replace(found, clip_start_s=50.0, clip_end_s=55.0)
    with pytest.raises(ValueError, match="not within the clip"):
        explain(snapshot, clip, late)
    with pytest.raises(SilentAudio):
        explain(snapshot, np.zeros(40_000, np.float32), found)
    with pytest.raises(ValueError, match="not within the clip"):
        explain(snapshot, clip[:4000], found)


def test_a_comparison_is_explained_the_same_way() -> None:
    first = join(extract(np.concatenate([song(12.0, 3), song(14.0, 4)])))
    second = join(extract(np.concatenate([noise(9.0, 1), song(14.0, 4)])))
    found = compare(first, second)
    why = explain_comparison(first, second, found.passages[0])
    assert why.place.score == pytest.approx(found.score, abs=0.01)
    assert why.place.video_start_s - why.place.clip_start_s == pytest.approx(3.0, abs=0.05)
    assert len(why.aligned) > 0.8 * len(why.clip)
    assert abs(why.offsets.offset_s[int(np.argmax(why.offsets.votes))]) < 0.1
    assert all(runner.recording_id == 0 for runner in why.runners_up)
