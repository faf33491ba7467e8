"""The picture of an explanation: what lies on what, how much of it, what it counts for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from soundhash import Explanation, LandmarkPoints, MatchedPlace
from soundhash._explanation import ContrastPatch
from soundhash.cli._drawing.scene import Bitmap, Dot, Line, Rect, Scene, Text
from soundhash.cli._explaining import (
    answered,
    change,
    covered,
    number,
    ordered_terms,
    places,
    probability,
    shorten,
    signed,
)
from soundhash.cli._output import clock, span

WIDTH, HEIGHT = 1280, 960
MATCH, OTHER, SAME, INK, FAINT, GRID = (
    "#ea580c",
    "#94a3b8",
    "#16a34a",
    "#1e293b",
    "#64748b",
    "#e2e8f0",
)
QUIET, LOUD = (255, 255, 255), (23, 55, 94)
"""Of the spectrograms, from quieter to louder than what is around."""
LEAST_NEPER, MOST_NEPER = -0.75, 2.25

LEFT, RIGHT = 96.0, 800.0
"""The spectrograms' sides."""
COLUMN, COLUMN_END = 880.0, 1240.0
"""The column beside them."""
CLIP_TOP, VIDEO_TOP, SIDE_HEIGHT = 180.0, 440.0, 200.0
COVERAGE_TOP, COVERAGE_HEIGHT = 722.0, 56.0
TERMS_TOP, TERM_STEP = 218.0, 43.0
OFFSETS_TOP, OFFSETS_HEIGHT = 722.0, 110.0
DEFAULT_LOWEST_HZ, DEFAULT_BANDS = 150.0, 55
MOST_TIES = 24


def draw(why: Explanation) -> Scene:
    """The picture."""
    scene = Scene(WIDTH, HEIGHT, f"Why this is a match: {why.match.title}")
    _head(scene, why)
    _Sides(scene, why).draw()
    _terms(scene, why)
    _offsets(scene, why)
    _foot(scene, why)
    return scene


def _head(scene: Scene, why: Explanation) -> None:
    place = why.place
    scene.add(
        Text(40, 46, f"Is it “{shorten(place.title, 44)}”?", 24, bold=True),
        Text(40, 74, places(why), 15),
        Text(40, 98, change(place), 15, FAINT),
        Text(COLUMN_END, 46, answered(why), 20, MATCH if _yes(why) else FAINT, "end", bold=True),
        Text(
            COLUMN_END,
            74,
            f"score {number(place.score)}, answered from {why.match_score:.1f} on",
            15,
            anchor="end",
        ),
        Text(COLUMN_END, 98, f"confidence {probability(place.confidence)}", 15, FAINT, "end"),
        Line(40, 116, COLUMN_END, 116, GRID),
    )


def _yes(why: Explanation) -> bool:
    return why.place.score >= why.match_score


class _Sides:
    """Clip above video, on one time axis: what is the same stands above one another."""

    def __init__(self, scene: Scene, why: Explanation) -> None:
        self._scene = scene
        self._why = why
        patches, place = why.patches, why.place
        self._place = place
        # The axis is the video's time; the clip's is stretched to it.
        self._first_s, self._last_s = place.video_start_s, place.video_end_s
        empty = not patches.video.cells
        self._lowest_hz = DEFAULT_LOWEST_HZ if empty else patches.lowest_hz
        self._bands = DEFAULT_BANDS if empty else patches.video.bands
        self._aligned_clip = set(why.aligned.clip)
        self._aligned_video = set(why.aligned.video)

    def draw(self) -> None:
        """Both, with what lies between and below."""
        why, place = self._why, self._place
        n, total = why.aligned.total, why.clip_landmarks.total
        self._scene.add(
            Text(LEFT, CLIP_TOP - 28, "The clip", 16, bold=True),
            Text(
                LEFT + 84,
                CLIP_TOP - 28,
                f"{n} of its {total} peaks are also in the video",
                13,
                FAINT,
            ),
        )
        self._side(CLIP_TOP, why.patches.clip, place.pitch)
        self._side(VIDEO_TOP, why.patches.video, 1.0)
        self._ties()
        self._scene.add(
            Rect(LEFT, VIDEO_TOP - 30, RIGHT - LEFT, 24, "#ffffff"),
            Text(LEFT, VIDEO_TOP - 12, "The video", 16, bold=True),
            Text(
                LEFT + 96,
                VIDEO_TOP - 12,
                f"at {span(place.video_start_s, place.video_end_s)}, from its stored fingerprint: "
                f"{n} of its {self._video_peaks()} peaks are also in the clip",
                13,
                FAINT,
            ),
        )
        self._points(CLIP_TOP, why.clip_landmarks, self._aligned_clip, self._clip_x, place.pitch)
        self._points(VIDEO_TOP, why.video_landmarks, self._aligned_video, self._x, 1.0)
        self._clock_axis(CLIP_TOP, place.clip_start_s, place.clip_end_s, self._clip_x, "clip")
        self._clock_axis(VIDEO_TOP, self._first_s, self._last_s, self._x, "video")
        self._legend()
        self._coverage()

    def _video_peaks(self) -> int:
        """Within the part; the fingerprint keeps only the strongest, the clip has more."""
        times = self._why.video_landmarks.time_s
        return sum(self._first_s <= time_s <= self._last_s for time_s in times)

    def _x(self, video_s: float) -> float:
        share = (video_s - self._first_s) / max(1e-9, self._last_s - self._first_s)
        return LEFT + share * (RIGHT - LEFT)

    def _clip_x(self, clip_s: float) -> float:
        place = self._place
        return self._x(place.video_start_s + place.speed * (clip_s - place.clip_start_s))

    def _y(self, top: float, video_hz: float) -> float:
        band = 12.0 * math.log2(max(1.0, video_hz) / self._lowest_hz) + 0.5
        return top + SIDE_HEIGHT * (1.0 - band / self._bands)

    def _side(self, top: float, patch: ContrastPatch, pitch: float) -> None:
        scene, patches = self._scene, self._why.patches
        scene.add(Rect(LEFT, top, RIGHT - LEFT, SIDE_HEIGHT, "#f1f5f9"))
        if patch.cells:
            first = self._x(patches.first_video_s - 0.5 * patches.row_s)
            last = self._x(patches.first_video_s + (patch.rows - 0.5) * patches.row_s)
            scene.add(
                Bitmap(
                    first, top, last - first, SIDE_HEIGHT, patch.rows, patch.bands, _pixels(patch)
                )
            )
        scene.add(Rect(LEFT, top, RIGHT - LEFT, SIDE_HEIGHT, "none", "#94a3b8"))
        for octave in range(6):
            hz = 100.0 * 2**octave
            y = self._y(top, hz / pitch)
            if top - 1 <= y <= top + SIDE_HEIGHT + 1:
                scene.add(
                    Line(LEFT - 5, y, LEFT, y, FAINT),
                    Text(LEFT - 9, y + 4, f"{hz:.0f}", 12, FAINT, "end"),
                )
        scene.add(Text(LEFT - 9, top - 8, "Hz", 12, FAINT, "end"))

    def _points(
        self,
        top: float,
        points: LandmarkPoints,
        aligned: set[int],
        x_of: Callable[[float], float],
        pitch: float,
    ) -> None:
        radius = 3.6 if len(points.time_s) < 500 else 2.6
        lone, both = [], []
        for i, (time_s, hz) in enumerate(zip(points.time_s, points.frequency_hz, strict=True)):
            x, y = x_of(time_s), self._y(top, hz / pitch)
            if not (LEFT <= x <= RIGHT and top <= y <= top + SIDE_HEIGHT):
                continue
            tip = f"{clock(time_s)}, {hz:.0f} Hz"
            if i in aligned:
                both.append(Dot(x, y, radius, MATCH, "#ffffff", f"{tip}: in both"))
            else:
                lone.append(Dot(x, y, radius - 1.2, "none", FAINT, f"{tip}: only here"))
        self._scene.add(*lone, *both)

    def _ties(self) -> None:
        """From some of the strongest aligned peaks down to their counterparts."""
        why = self._why
        strongest = sorted(
            zip(why.aligned.clip, why.aligned.video, strict=True),
            key=lambda pair: -why.clip_landmarks.strength[pair[0]],
        )
        taken: list[float] = []
        for ours, theirs in strongest:
            x = self._x(why.video_landmarks.time_s[theirs])
            if len(taken) == MOST_TIES or any(abs(x - other) < 12 for other in taken):
                continue
            taken.append(x)
            hz = why.clip_landmarks.frequency_hz[ours] / self._place.pitch
            self._scene.add(
                Line(
                    self._clip_x(why.clip_landmarks.time_s[ours]),
                    self._y(CLIP_TOP, hz),
                    x,
                    self._y(VIDEO_TOP, why.video_landmarks.frequency_hz[theirs]),
                    "#fdba74",
                    0.8,
                )
            )

    def _clock_axis(
        self, top: float, first_s: float, last_s: float, x_of: Callable[[float], float], of: str
    ) -> None:
        y = top + SIDE_HEIGHT
        for at_s in _ticks(first_s, last_s):
            x = x_of(at_s)
            self._scene.add(
                Line(x, y, x, y + 5, FAINT), Text(x, y + 18, clock(at_s), 12, FAINT, "middle")
            )
        self._scene.add(Text(40, y + 18, of, 12, FAINT))

    def _legend(self) -> None:
        y = VIDEO_TOP + SIDE_HEIGHT + 42
        self._scene.add(
            Dot(LEFT + 6, y - 4, 4, MATCH, "#ffffff"),
            Text(LEFT + 16, y, "peak of both, at the same time and pitch", 12, FAINT),
            Dot(LEFT + 304, y - 4, 3, "none", FAINT),
            Text(LEFT + 314, y, "peak of one only", 12, FAINT),
        )
        x = LEFT + 460
        for step in range(24):
            self._scene.add(Rect(x + 4 * step, y - 11, 4.5, 12, _color(step / 23)))
        self._scene.add(Text(x + 104, y, "quieter … louder than around", 12, FAINT))

    def _coverage(self) -> None:
        why = self._why
        top, bottom = COVERAGE_TOP, COVERAGE_TOP + COVERAGE_HEIGHT
        self._scene.add(
            Text(LEFT, top - 14, "The same sound?", 16, bold=True),
            Text(LEFT + 168, top - 14, f"{covered(why)} of the clip, by half seconds", 13, FAINT),
            Rect(LEFT, top, RIGHT - LEFT, COVERAGE_HEIGHT, "#f1f5f9"),
        )
        for block in why.blocks:
            first, last = (
                max(LEFT, self._clip_x(block.start_s)),
                min(RIGHT, self._clip_x(block.end_s)),
            )
            height = COVERAGE_HEIGHT * min(1.0, max(0.04, block.correlation))
            word = "the same" if block.covered else "not the same"
            self._scene.add(
                Rect(
                    first + 1,
                    bottom - height,
                    last - first - 2,
                    height,
                    SAME if block.covered else OTHER,
                    tip=f"{span(block.start_s, block.end_s)}: {word} ({block.correlation:.2f})",
                )
            )
        for value in (0, 1):
            y = bottom - value * COVERAGE_HEIGHT
            self._scene.add(Text(LEFT - 9, y + 4, str(value), 12, FAINT, "end"))
        y = bottom + 20
        self._scene.add(
            Rect(LEFT, y - 10, 11, 11, SAME),
            Text(LEFT + 17, y, "the same", 12, FAINT),
            Rect(LEFT + 96, y - 10, 11, 11, OTHER),
            Text(LEFT + 113, y, "not, or not sure", 12, FAINT),
            Text(RIGHT, y, "height: correlation of the two spectrograms", 12, FAINT, "end"),
        )


def _terms(scene: Scene, why: Explanation) -> None:
    """How the score grows term by term, for the match and for the best other place."""
    match = ordered_terms(why.place)
    rival = why.runners_up[0] if why.runners_up else None
    other = {term.name: term.contribution for term in rival.terms} if rival else {}
    steps = list(_steps([term.contribution for term in match]))
    rival_steps = list(_steps([other.get(term.name, 0.0) for term in match])) if rival else []
    edges = [edge for pair in steps + rival_steps for edge in pair] + [why.match_score]
    least, most = min(edges), max(edges)

    def x_of(score: float) -> float:
        return COLUMN + (score - least) / max(1e-9, most - least) * (COLUMN_END - COLUMN - 44)

    bottom = TERMS_TOP + TERM_STEP * len(match)
    scene.add(Text(COLUMN, CLIP_TOP - 28, "What speaks for it", 16, bold=True))
    _key(scene, rival)
    line = x_of(why.match_score)
    for row, term in enumerate(match):
        y = TERMS_TOP + TERM_STEP * row
        first, last = sorted(map(x_of, steps[row]))
        scene.add(
            Line(line, y + 3, line, y + 26, INK, 1.2),
            Text(COLUMN, y, term.description, 12),
            Rect(first, y + 5, max(1.0, last - first), 11, MATCH),
            Rect(last + 2, y + 4, 36, 13, "#ffffff"),
            Text(last + 5, y + 15, signed(term.contribution), 12, MATCH),
        )
        if rival:
            first, last = sorted(map(x_of, rival_steps[row]))
            scene.add(Rect(first, y + 17, max(1.0, last - first), 5, OTHER))
    y = bottom + 4
    scene.add(
        Line(COLUMN, y - 12, COLUMN_END, y - 12, GRID),
        Text(COLUMN, y + 4, "sum: the score", 12, bold=True),
    )
    end = x_of(why.place.score)
    scene.add(
        Line(end, y + 9, end, y + 21, MATCH, 3),
        Text(end + 5, y + 20, number(why.place.score), 13, MATCH, bold=True),
    )
    if rival:
        theirs = x_of(rival.score)
        # Beside the match's number, never on it.
        before = 0 <= end - theirs < 44
        scene.add(
            Line(theirs, y + 9, theirs, y + 21, FAINT, 3),
            Text(
                theirs - 5 if before else theirs + 5,
                y + 20,
                number(rival.score),
                13,
                FAINT,
                "end" if before else "start",
                bold=True,
            ),
        )
    scene.add(
        Line(line, y + 7, line, y + 26, INK, 1.2),
        Text(
            min(max(line, COLUMN + 66), COLUMN_END - 66),
            y + 40,
            f"answered from {why.match_score:.1f} on",
            12,
            INK,
            "middle",
        ),
    )


def _key(scene: Scene, rival: MatchedPlace | None) -> None:
    y = CLIP_TOP - 6
    scene.add(
        Rect(COLUMN, y - 10, 11, 11, MATCH),
        Text(COLUMN + 16, y, "this place", 12, FAINT),
    )
    if rival:
        scene.add(
            Rect(COLUMN + 96, y - 7, 11, 5, OTHER),
            Text(COLUMN + 112, y, f"next best: “{shorten(rival.title, 22)}”", 12, FAINT),
        )


def _steps(contributions: list[float]) -> Iterator[tuple[float, float]]:
    total = 0.0
    for value in contributions:
        yield total, total + value
        total += value


def _offsets(scene: Scene, why: Explanation) -> None:
    offsets = why.offsets
    top, bottom = OFFSETS_TOP, OFFSETS_TOP + OFFSETS_HEIGHT
    most = max(offsets.votes, default=0)
    scene.add(
        Text(COLUMN, top - 14, "Nowhere else?", 16, bold=True),
        Text(COLUMN + 146, top - 14, "agreeing pairs, by offset", 13, FAINT),
        Rect(COLUMN, top, COLUMN_END - COLUMN, OFFSETS_HEIGHT, "#f1f5f9"),
    )
    if not offsets.votes:
        return
    span_s = offsets.bin_s * len(offsets.votes)
    start_s = offsets.first_offset_s - 0.5 * offsets.bin_s

    def x_of(at_s: float) -> float:
        return COLUMN + (at_s - start_s) / span_s * (COLUMN_END - COLUMN)

    first, last = offsets.first_possible, offsets.last_possible
    for begin, end in ((0, first), (last + 1, len(offsets.votes))):
        if end > begin:
            # Where the video does not reach.
            x = x_of(start_s + begin * offsets.bin_s)
            width = x_of(start_s + end * offsets.bin_s) - x
            scene.add(Rect(x, top, width, OFFSETS_HEIGHT, "#e2e8f0", tip="beyond the video"))
    for n, votes in enumerate(offsets.votes):
        if votes:
            at_s = offsets.first_offset_s + n * offsets.bin_s
            height = (OFFSETS_HEIGHT - 8) * votes / max(1, most)
            x = x_of(at_s - 0.5 * offsets.bin_s)
            near = abs(at_s) <= 1.5 * offsets.bin_s
            scene.add(
                Rect(
                    x - 0.5 * near,
                    bottom - height,
                    x_of(at_s + 0.5 * offsets.bin_s) - x + near,
                    height,
                    MATCH if near else OTHER,
                    tip=f"{at_s:+.2f} s: {votes} pairs",
                )
            )
    peak = max(
        (v for n, v in enumerate(offsets.votes) if abs(_at(why, n)) <= 1.5 * offsets.bin_s),
        default=0,
    )
    left = x_of(-9.0)
    scene.add(
        Text(x_of(0.0) + 8, top + 16, f"{peak} here", 12, MATCH, bold=True),
        Text(left, bottom - 20, f"{offsets.background:.1f} elsewhere, on average", 12, FAINT),
    )
    for at_s in (-8, -4, 0, 4, 8):
        label = f"{at_s:+d} s" if at_s else "this place"
        scene.add(Text(x_of(at_s), bottom + 17, label, 12, FAINT, "middle"))


def _at(why: Explanation, n: int) -> float:
    return why.offsets.first_offset_s + n * why.offsets.bin_s


def _foot(scene: Scene, why: Explanation) -> None:
    y = HEIGHT - 74
    scene.add(Line(40, y - 24, COLUMN_END, y - 24, GRID))
    if why.runners_up:
        told = []
        for one in why.runners_up:
            verdict = "would be answered too" if one.score >= why.match_score else "not answered"
            told.append(
                f"“{shorten(one.title, 34)}” at {clock(one.video_start_s)}, "
                f"score {number(one.score)} ({verdict})"
            )
        scene.add(Text(40, y, "Next best places: " + ";  ".join(told[:2]) + ".", 13))
    else:
        scene.add(Text(40, y, "No other place in the index comes near.", 13))
    kept = "what the server kept of the clip" if why.from_kept else "the clip itself"
    scene.add(
        Text(
            40,
            y + 22,
            f"Made from {kept}. Spectrograms are shown as they are compared: contrast in cells of "
            "64 ms × 1/12 octave, the clip stretched to the video's time and pitch,",
            12,
            FAINT,
        ),
        Text(
            40,
            y + 38,
            "each time's and each band's mean removed. The video's side is its stored fingerprint: "
            f"no audio is kept. Catalogue: {why.catalogue_hours:,.1f} h.",
            12,
            FAINT,
        ),
    )


def _pixels(patch: ContrastPatch) -> bytes:
    """The patch as a picture: time to the right, the highest band on top."""
    palette = []
    for value in range(256):
        share = ((value - 128) / 16.0 - LEAST_NEPER) / (MOST_NEPER - LEAST_NEPER)
        palette.append(bytes(_mix(min(1.0, max(0.0, share)))))
    return b"".join(
        palette[patch.cells[row * patch.bands + band]]
        for band in reversed(range(patch.bands))
        for row in range(patch.rows)
    )


def _mix(share: float) -> tuple[int, int, int]:
    red, green, blue = (
        round(low + share * (high - low)) for low, high in zip(QUIET, LOUD, strict=True)
    )
    return red, green, blue


def _color(share: float) -> str:
    return "#{:02x}{:02x}{:02x}".format(*_mix(share))


def _ticks(first_s: float, last_s: float) -> list[float]:
    """Five to ten round times."""
    length_s = max(1e-9, last_s - first_s)
    step = next((s for s in (0.2, 0.5, 1, 2, 5, 10, 30, 60, 300) if length_s / s <= 9), 600.0)
    return [n * step for n in range(math.ceil(first_s / step), math.floor(last_s / step) + 1)]
