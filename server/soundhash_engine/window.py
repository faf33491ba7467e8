"""One window of a clip against a snapshot: retrieve, align, refine, verify, in rounds.

The first round asks only what clean and re-encoded clips need; each further round asks more. The
search ends when the best answer convinces; only a clip that is not there pays for all rounds.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.align import align, refine
from soundhash_engine.glance import glance, is_unchanged
from soundhash_engine.hypotheses import (
    IDENTITY,
    Hypotheses,
    single_hypotheses,
    wide_hypotheses,
)
from soundhash_engine.index import Snapshot
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.postings import Missing
from soundhash_engine.scan import scan, scan_volume
from soundhash_engine.score import score
from soundhash_engine.search import Candidates, retrieve
from soundhash_engine.types import QueryFeatures
from soundhash_engine.verify import Evidence, Query, prepare, verify
from soundhash_engine.volume import Volume

GLANCED_S = 600.0
LEAST_GLANCED = 60
MOST_GLANCED = 160
GLANCED_ALIGNMENT = 2.0
MOST_VOTED = 4
"""The best aligned candidates of a round get a glance, if they coincide at all, and those with the
most votes: a hall or noise blurs the alignment and leaves the votes. So many seconds of clip are
glanced at: of a short clip, which aligns worse and costs less, more places."""
CLEAR_SHARE = 0.5
"""Candidates that align at least so sharply as this share of the best are looked at first."""
GLANCE_LEAST = 0.0
"""Candidates with less in a glance are not verified."""
LOOP_GLANCE = 1.5
"""Candidates this near to the best glance are verified too: loops and near copies."""
MOST_LOOPS = 12
MOST_ASIDE = 4
"""So many places are verified of what lies beside the index, unless more are asked for: it repeats
itself without end, and a few of its turns say what there is to say."""
SCAN_HOURS = 100.0
SCAN_S = 6.0
"""The triples of a short clip reach beyond its end, and a voice on top leaves few of them. In a
catalogue of up to this size it is laid over everything where no triple has found it (half a
millisecond an hour)."""
SCAN_ALIGNED = 400
SCAN_VERIFIED = 12
FEW_VOTES_HOURS = 100.0
"""In a larger catalogue chance gives more places one vote less than in a smaller one can be looked
at: the deeper rounds need one more."""
DOUBTFUL_SCORE = 0.0
CERTAIN_SCORE = 12.0
"""Between these the best answer's other changes and other places are looked for."""
LOOPS_ALIGNED = 40
LOOPS_VERIFIED = 4
SHORT_S = 4.0
LONG_S = 6.0
"""A shorter clip than the one is asked for as many triples as one of that length, a longer one than
the other likewise: its best triples are enough."""
LONE_S = 1.5
LONE_ALIGNED = 1500
"""Unchanged, a shorter clip needs one vote less of a place, and so many places are aligned."""
SAME_PLACE_FRAMES = 16.0
"""Candidates of one place: nearer than this to one another."""


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """One step of the search.

    targets              most targets an anchor
    triples_per_s        so many triples, those that the recording most likely has as well
    margin               soft probes: share of a cell near its border, 0 for none
    least_votes          a candidate has at least this many
    aligned, verified    how many candidates go on
    """

    name: str
    hypotheses: Hypotheses
    targets: int
    triples_per_s: int
    margin: float
    least_votes: int
    aligned: int
    verified: int


DEEP_ROUND = Round("deep", IDENTITY, 20, 3000, 0.15, 2, 400, 8)
ROUNDS = (
    Round("identity", IDENTITY, 10, 100, 0.0, 2, 60, 4),
    Round("changed", wide_hypotheses(), 10, 100, 0.0, 3, 150, 8),
    DEEP_ROUND,
    Round("single", single_hypotheses(), 12, 600, 0.15, 2, 600, 12),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Hit:
    """A verified place.

    recording_id
    position   frame of the recording at which the clip's centre lies
    pitch      bins that the clip lies above the recording
    tempo      seconds of the recording in a second of the clip
    alignment  how sharply the landmarks coincide
    identity   neither pitch nor tempo changed
    aside      found in what is searched beside the index, see `Snapshot.beside`
    """

    recording_id: int
    position: float
    pitch: float
    tempo: float
    alignment: float
    identity: bool
    score: float
    evidence: Evidence
    aside: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class WindowResult:
    """All verified places of a window, best first, and the rounds that it took."""

    hits: tuple[Hit, ...]
    rounds: int


class WindowSearch:
    """The search for one window; holds what the rounds share."""

    def __init__(
        self,
        snapshot: Snapshot,
        features: QueryFeatures,
        params: Params = PARAMS,
        *,
        most_aside: int = MOST_ASIDE,
    ) -> None:
        self._snapshot = snapshot
        self._most_aside = most_aside
        # Volumes from this one on are aside: they have candidates of their own.
        self._first_aside = len(snapshot.volumes) - snapshot.aside
        self._hours = snapshot.hours - snapshot.hours_aside
        self._landmarks = features.landmarks
        self._features = features
        self._params = params
        self._query: Query | None = None
        self._centre_half = float(features.landmarks.n_frames - 1)
        self._hits: list[Hit] = []
        self._sure = np.inf
        self._tried: set[tuple[int, int, int, int]] = set()
        self.missing: dict[str, Missing] = {}
        """Parts of the index that did not answer in some round, by name."""

    def try_line(self, recording_id: int, position: float, pitch: float, tempo: float) -> None:
        """Verify one place before any search: frame of the recording at the clip's centre."""
        place = self._place(recording_id)
        if place is None:
            return
        at, volume, row = place
        reach = 0.5 * self._landmarks.n_frames
        if -reach < position < float(volume.n_frames[row]) + reach:
            self._verify(at, row, position + float(volume.base_frame[row]), pitch, tempo, 0.0)

    def run(self, sure: float, rounds: Sequence[Round] = ROUNDS) -> WindowResult:
        """Search round by round until the best score reaches ``sure``."""
        self._sure = sure
        done = 0
        # What is aside decides only where there is nothing else.
        deciding = self._first_aside == 0
        while done < len(rounds) and self._snapshot.volumes:
            # What the first round finds may be another turn of a loop, played faster or slower.
            if self._best(deciding) >= (CERTAIN_SCORE if done == 1 else sure):
                break
            self._round(rounds[done])
            if rounds[done] is DEEP_ROUND and self._best(deciding) < sure:
                self._scan()
            done += 1
        if done:
            for best in self._best_hits():
                self._try_all_changes(best)
            for best in self._best_hits():
                self._try_other_places(best)
        return WindowResult(
            hits=tuple(sorted(self._hits, key=lambda h: (-h.score, h.recording_id, h.position))),
            rounds=done,
        )

    def _best(self, aside: bool) -> float:
        return max((hit.score for hit in self._hits if hit.aside == aside), default=-np.inf)

    def _best_hits(self) -> list[Hit]:
        """The best one, and the best one aside."""
        groups = ([hit for hit in self._hits if hit.aside == aside] for aside in (False, True))
        return [max(group, key=lambda h: h.score) for group in groups if group]

    def _try_other_places(self, best: Hit) -> None:
        """Lay the clip, changed like the best answer, over all of that recording.

        The rounds may find one turn of a loop and miss the one that fits better.
        """
        if not DOUBTFUL_SCORE < best.score < CERTAIN_SCORE:
            return
        place = self._place(best.recording_id)
        if place is None:
            return
        at, volume, row = place
        first = int(volume.base_frame[row])
        candidates = scan_volume(
            volume,
            at,
            self._landmarks,
            self._centre_half,
            most=LOOPS_ALIGNED,
            pitch=best.pitch,
            tempo=best.tempo,
            frames=(first, first + int(volume.n_frames[row])),
        )
        rows = np.full(len(candidates), row, np.int64)
        self._confirm(candidates, rows, LOOPS_VERIFIED)

    def _place(self, recording_id: int) -> tuple[int, Volume, int] | None:
        """Number of the volume that holds a recording, the volume and the row."""
        found = self._snapshot.find(recording_id)
        if found is None:
            return None
        volume, row = found
        at = next(i for i, v in enumerate(self._snapshot.volumes) if v is volume)
        return at, volume, row

    def _round(self, step: Round) -> None:
        seconds = self._landmarks.n_frames / self._params.frames_per_s
        # A single triple may be all of a very short clip; it costs next to nothing to align.
        lone = seconds < LONE_S and len(step.hypotheses) == 1
        least_votes = step.least_votes - 1 if lone else step.least_votes
        if step.margin > 0.0 and self._hours > FEW_VOTES_HOURS:
            least_votes += 1
        candidates, missing = retrieve(
            self._snapshot.postings,
            self._snapshot.volumes,
            self._landmarks,
            step.hypotheses,
            centre_half_frames=self._centre_half,
            n_targets=step.targets,
            limit=round(step.triples_per_s * min(max(seconds, SHORT_S), LONG_S)),
            margin=step.margin,
            least_votes=least_votes,
            most=LONE_ALIGNED if lone else step.aligned,
            aside=self._snapshot.aside,
            params=self._params,
        )
        self.missing.update((part.part, part) for part in missing)
        rows = self._rows(candidates)
        here = np.flatnonzero(rows >= 0)
        self._confirm(candidates.take(here), rows[here], step.verified)

    def _scan(self) -> None:
        """Lay a short clip, unchanged, over every place of a small catalogue."""
        seconds = self._landmarks.n_frames / self._params.frames_per_s
        volumes = self._snapshot.volumes[: self._first_aside]
        if seconds > SCAN_S or self._hours > SCAN_HOURS or not volumes:
            return
        candidates = scan(volumes, self._landmarks, self._centre_half, most=SCAN_ALIGNED)
        rows = self._rows(candidates)
        here = np.flatnonzero(rows >= 0)
        self._confirm(candidates.take(here), rows[here], SCAN_VERIFIED)

    def _rows(self, candidates: Candidates) -> NDArray[np.int64]:
        """Row of the recording at each candidate; −1 where there is none that counts."""
        rows = np.full(len(candidates), -1, np.int64)
        reach = 0.5 * self._landmarks.n_frames
        for at, (volume, alive) in enumerate(
            zip(self._snapshot.volumes, self._snapshot.alive, strict=True)
        ):
            mine = candidates.volume == at
            if not mine.any() or not len(alive):
                continue
            position = candidates.position[mine]
            row = np.searchsorted(volume.base_frame, position + reach, side="right") - 1
            row = np.maximum(row, 0)
            inside = (position > volume.base_frame[row] - reach) & (
                position < volume.base_frame[row] + volume.n_frames[row] + reach
            )
            rows[mine] = np.where(inside & alive[row], row, -1)
        return rows

    def _align(self, candidates: Candidates) -> NDArray[np.float64]:
        z = np.full(len(candidates), -9.0)
        for at, volume in enumerate(self._snapshot.volumes):
            mine = np.flatnonzero(candidates.volume == at)
            if not len(mine):
                continue
            out = np.empty(len(mine), np.float64)
            align(
                volume.peaks,
                volume.block,
                self._landmarks.time,
                self._landmarks.bin,
                self._centre_half,
                candidates.position[mine],
                candidates.pitch[mine],
                candidates.tempo[mine],
                out,
            )
            z[mine] = out
        return z

    def _glance(self, candidates: Candidates, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Score of a glance at each candidate; a match has more than 0."""
        params = self._params
        out = np.empty(len(candidates), np.float64)
        for at, volume in enumerate(self._snapshot.volumes):
            mine = np.flatnonzero(candidates.volume == at)
            if not len(mine):
                continue
            scores = np.empty(len(mine), np.float64)
            glance(
                volume.peaks,
                volume.block,
                volume.descriptor,
                volume.first_row,
                volume.base_frame,
                params.descriptor_bands,
                params.descriptor_frames,
                params.descriptor_bins,
                params.descriptor_clip_steps,
                params.descriptor_step_neper,
                self._landmarks.time,
                self._landmarks.bin,
                self._landmarks.rank,
                self._landmarks.n_frames,
                self._prepared().peakiness,
                rows[mine],
                candidates.position[mine],
                candidates.pitch[mine],
                candidates.tempo[mine],
                scores,
            )
            out[mine] = scores
        return out

    def _prepared(self) -> Query:
        if self._query is None:
            self._query = prepare(self._features.contrast, self._landmarks, self._params)
        return self._query

    def _confirm(self, candidates: Candidates, rows: NDArray[np.int64], most: int) -> None:
        """Verify candidates, those of what is aside by themselves."""
        aside = candidates.volume >= self._first_aside
        for is_aside in (False, True):
            mine = np.flatnonzero(aside == is_aside)
            if len(mine) and not (is_aside and self._enough_aside()):
                self._confirm_some(candidates.take(mine), rows[mine], most, is_aside)

    def _enough_aside(self) -> bool:
        sure = {hit.recording_id for hit in self._hits if hit.aside and hit.score >= self._sure}
        return len(sure) >= self._most_aside

    def _confirm_some(
        self, candidates: Candidates, rows: NDArray[np.int64], most: int, aside: bool
    ) -> None:
        """Verify the clear ones first, the others where those do not convince."""
        z = self._align(candidates)
        # The first ones have the most votes; after them the best aligned.
        ranked = z.copy()
        ranked[:MOST_VOTED] += np.inf
        seconds = self._landmarks.n_frames / self._params.frames_per_s
        most_glanced = max(LEAST_GLANCED, min(MOST_GLANCED, int(GLANCED_S / seconds)))
        some = np.argsort(-ranked, kind="stable")[:most_glanced]
        some = some[ranked[some] >= GLANCED_ALIGNMENT]
        clear = z[some] >= CLEAR_SHARE * z[some].max(initial=0.0)
        self._look_at(candidates, rows, z, some[clear], most, aside)
        if self._best(aside) < self._sure:
            self._look_at(candidates, rows, z, some[~clear], most, aside)

    def _look_at(
        self,
        candidates: Candidates,
        rows: NDArray[np.int64],
        z: NDArray[np.float64],
        some: NDArray[np.intp],
        most: int,
        aside: bool,
    ) -> None:
        """Verify those of ``some`` that pass a glance, the best first, and those about as good."""
        most_like_top = self._most_aside if aside else most + MOST_LOOPS
        scores = self._glance(candidates.take(some), rows[some])
        seen: list[tuple[int, float]] = []
        top = float(scores.max(initial=-np.inf))
        for k in np.argsort(-scores, kind="stable").tolist():
            near_top = scores[k] >= top - LOOP_GLANCE
            if scores[k] < GLANCE_LEAST or (self._best(aside) >= self._sure and not near_top):
                break
            if len(seen) >= (most_like_top if near_top else most):
                break
            i = int(some[k])
            place = (int(candidates.volume[i]), float(candidates.position[i]))
            if any(v == place[0] and abs(f - place[1]) < SAME_PLACE_FRAMES for v, f in seen):
                continue
            seen.append(place)
            # Of the changes that lead to one place the one that aligns most sharply is the truest.
            here = some[
                (candidates.volume[some] == place[0])
                & (np.abs(candidates.position[some] - place[1]) < SAME_PLACE_FRAMES)
                & (rows[some] == rows[i])
            ]
            i = int(here[np.argmax(z[here])])
            self._verify(
                place[0],
                int(rows[i]),
                float(candidates.position[i]),
                float(candidates.pitch[i]),
                float(candidates.tempo[i]),
                float(z[i]),
            )

    def _verify(
        self, at: int, row: int, position: float, pitch: float, tempo: float, z: float
    ) -> None:
        volume = self._snapshot.volumes[at]
        unchanged = pitch == 0.0 and tempo == 1.0
        position, pitch, tempo, _ = refine(
            volume.peaks,
            volume.block,
            self._landmarks.time,
            self._landmarks.bin,
            self._centre_half,
            position,
            pitch,
            tempo,
        )
        identity = is_unchanged(pitch, tempo, self._landmarks.n_frames)
        if identity or unchanged:
            # The few landmarks of a short clip may refine to a change that is none.
            self._judge(at, row, position, 0.0, 1.0, z)
        if not identity:
            self._judge(at, row, position, pitch, tempo, z)

    def _judge(
        self, at: int, row: int, position: float, pitch: float, tempo: float, z: float
    ) -> None:
        """Verify one place as it is, once."""
        volume = self._snapshot.volumes[at]
        key = (at, round(position / 2), round(pitch * 4), round(tempo * 400))
        if key in self._tried:
            return
        self._tried.add(key)
        identity = pitch == 0.0 and tempo == 1.0
        evidence = verify(self._prepared(), volume, row, position, pitch, tempo, self._params)
        self._hits.append(
            Hit(
                recording_id=int(volume.recording_id[row]),
                position=position - float(volume.base_frame[row]),
                pitch=pitch,
                tempo=tempo,
                alignment=z,
                identity=identity,
                score=score(evidence, identity=identity),
                evidence=evidence,
                aside=at >= self._first_aside,
            )
        )

    def _try_all_changes(self, best: Hit) -> None:
        """Align the best place under every hypothesis: the first to find it may be a wrong one."""
        if best.identity or best.score >= CERTAIN_SCORE:
            return
        place = self._place(best.recording_id)
        if place is None:
            return
        at, volume, row = place
        every = wide_hypotheses()
        n = len(every)
        candidates = Candidates(
            volume=np.full(n, at, np.int32),
            position=np.full(n, best.position + float(volume.base_frame[row])),
            pitch=every.pitch,
            tempo=every.tempo,
            votes=np.zeros(n),
        )
        z = self._align(candidates)
        for i in np.argsort(-z, kind="stable")[:4].tolist():
            self._verify(
                at,
                row,
                float(candidates.position[i]),
                float(every.pitch[i]),
                float(every.tempo[i]),
                float(z[i]),
            )
