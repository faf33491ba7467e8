"""What explains a match: plain data for whoever draws, sends or stores it."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.score import Contribution
from soundhash_engine.verify import Evidence


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LandmarkPoints:
    """Landmarks of one side in the order of time; three arrays of one length.

    time_s        float64, seconds of the clip or of the recording
    frequency_hz  float64
    strength      uint8, 0 … 63, in steps of 0.15 neper
    """

    time_s: NDArray[np.float64]
    frequency_hz: NDArray[np.float64]
    strength: NDArray[np.uint8]

    def __len__(self) -> int:
        return self.time_s.size


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class AlignedLandmarks:
    """Pairs of landmarks that lie on one another, each landmark in one pair at most.

    clip, recording  int64, indices into the explanation's landmarks
    residual_s       float64, the recording's time less what the match predicts, ±0.024
    residual_bins    float64, the same of the frequency, in 1/36 octave, ±0.9
    """

    clip: NDArray[np.int64]
    recording: NDArray[np.int64]
    residual_s: NDArray[np.float64]
    residual_bins: NDArray[np.float64]

    def __len__(self) -> int:
        return self.clip.size


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class OffsetHistogram:
    """How many pairs of landmarks agree at each offset from the place; a right one stands alone.

    offset_s    float64 (401,), the middles of bins of 48 ms; 0 is the place, −9.6 … 9.6
    votes       int32 (401,)
    possible    bool (401,), whether the clip's centre would lie within the recording
    background  mean votes of the possible bins that are not near the place
    """

    offset_s: NDArray[np.float64]
    votes: NDArray[np.int32]
    possible: NDArray[np.bool_]
    background: float


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """The clip's contrast, warped to the place, beside the recording's stored descriptor.

    clip, recording    float32 (rows, bands), neper; each row's and each band's mean removed
    clip_time_s        float64 (rows,), middle of each row in the clip
    recording_time_s   float64 (rows,), the same in the recording, 64 ms apart
    frequency_hz       float64 (bands,), middle of each band in the recording, 1/12 octave apart

    Rows and bands that only one side has are left out; without any, both are empty.
    """

    clip: NDArray[np.float32]
    recording: NDArray[np.float32]
    clip_time_s: NDArray[np.float64]
    recording_time_s: NDArray[np.float64]
    frequency_hz: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """Half a second of the clip beside the recording.

    start_s, end_s  seconds of the clip
    correlation     of the patches there, −1 … 1
    covered         whether that is enough to count as the same sound
    """

    start_s: float
    end_s: float
    correlation: float
    covered: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A place at which a part of the clip was verified.

    recording_id
    clip_start_s, clip_end_s    the part of the clip
    video_start_s, video_end_s  where it would lie, in the recording's seconds; may begin before
                                the recording or end after it
    speed, pitch  of the clip against the recording, factors
    score         sum of the contributions
    confidence    0 … 1, for a catalogue of this size
    contributions the score's terms
    evidence      all that was measured
    """

    recording_id: int
    clip_start_s: float
    clip_end_s: float
    video_start_s: float
    video_end_s: float
    speed: float
    pitch: float
    score: float
    confidence: float
    contributions: tuple[Contribution, ...]
    evidence: Evidence


@dataclasses.dataclass(frozen=True, slots=True)
class WindowScore:
    """What one part of the clip says of the match alone; seconds of the clip."""

    start_s: float
    end_s: float
    score: float


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Everything that speaks for a match and against it.

    place       the match at the part of the clip that convinces most; all below is of that part
    clip        the clip's landmarks in that part
    recording   the recording's landmarks there and 2 s around
    aligned     which of them lie on one another
    offsets     votes at the place and around it
    patches     the two sounds side by side
    blocks      half seconds in order; covered ones make ``evidence.coverage``
    windows     every part of the clip that was looked at, in order of time: a long match is many
    runners_up  the best other places in the index for this part of the clip, best first, at most
                three: another recording, or another time of the same one
    """

    place: Place
    clip: LandmarkPoints
    recording: LandmarkPoints
    aligned: AlignedLandmarks
    offsets: OffsetHistogram
    patches: Patches
    blocks: tuple[Block, ...]
    windows: tuple[WindowScore, ...]
    runners_up: tuple[Place, ...]
