"""Every number that the fingerprint and the search depend on, in one frozen place."""

import dataclasses
import functools
import hashlib

SAMPLE_RATE_HZ = 8000
"""Everything behind the decoder is mono at this rate; wider bands were measured: no gain."""

LEVEL_STEPS_PER_NEPER = 256
"""Log levels are integers of 1/256 neper, so that running sums over them are exact."""


@dataclasses.dataclass(frozen=True, slots=True)
class QueryParams:
    """What only the query side does; may change without making stored fingerprints again."""

    rank_limit: int = 60
    """A clip's peak is kept if fewer than this many within the rank window are stronger."""
    dropout_depth_neper: float = 2.5
    """A frame whose mean level lies this far below the running median is a drop-out."""
    dropout_median_frames: int = 41
    """Length of that running median; odd."""
    dropout_dilate_frames: int = 2
    """Drop-outs are widened by this many frames on both sides."""
    noise_fraction: float = 0.8
    """How much of a band's median power is taken off as stationary noise."""
    noise_floor_fraction: float = 0.1
    """At least this part of a cell's power stays."""


@dataclasses.dataclass(frozen=True, slots=True)
class SearchParams:
    """How fingerprints are searched; may change without making stored fingerprints again."""

    triple_rank_limit: int = 15
    """Reference peaks below this rank make triples."""
    triple_targets: int = 3
    """Strongest targets an anchor; t of them give t(t-1)/2 triples."""
    triple_min_dt_frames: int = 3
    triple_max_dt_frames: int = 80
    triple_max_df_bins: int = 40
    triple_bin_cell_bins: float = 1.5
    """Cell width of the anchor's and the targets' bins in a key."""
    triple_time_cell_frames: float = 2.0
    pair_min_dt_frames: int = 3
    pair_max_dt_frames: int = 80
    pair_max_df_bins: int = 30
    pair_reference_targets: int = 6
    pair_query_targets: int = 30
    pair_time_cell_frames: float = 1.5
    key_shift_bins: float = 0.125
    """Added to a quarter-bin frequency before it is floored to a cell, so that no stored
    value lies on a cell's border."""
    soft_margin: float = 0.26
    """Within this part of a cell's border the neighbour cell is probed too."""
    recording_gap_frames: int = 1500
    """Silence between two recordings on an index volume's one time line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Params:
    """The version-1 fingerprint.

    Frames are 16 ms apart (`hop_samples` at 8 kHz), bins 1/36 octave. The fields of this class
    itself decide what is stored: `digest` covers them, and a stored fingerprint with another
    digest is refused. `query` and `search` are free to change.
    """

    version: int = 1
    sample_rate_hz: int = SAMPLE_RATE_HZ
    n_fft_samples: int = 1024
    """Length of a frame and of its periodic Hann window (128 ms)."""
    hop_samples: int = 128
    """16 ms: 62.5 frames a second. Frame i covers samples [i hop, i hop + n_fft)."""
    lowest_band_hz: float = 150.0
    bands_per_octave: int = 36
    n_bands: int = 167
    """Bands at 150 · 2^(b/36) Hz, the last at 3,668 Hz."""
    min_half_width_hz: float = 7.8125
    """A band's triangle is at least one FFT bin wide to each side."""
    power_floor: float = 2.56e-5
    """Added to a band's power before the logarithm: about −94 dB of a full-scale sine."""
    mean_half_frames: int = 40
    mean_half_bins: int = 18
    """The local mean of the log level is taken over ± these."""
    peak_half_frames: int = 4
    peak_half_bins: int = 3
    """A peak is the maximum within ± these, not at the edges."""
    min_peak_contrast_neper: float = 0.25
    """A peak stands at least this far above its local mean: digital silence with its last bit
    flickering has no landmarks."""
    strength_mean_weight: float = 0.8
    """Strength = level − 0.8 · local mean."""
    strength_min_neper: float = 0.0
    strength_step_neper: float = 0.15
    """Stored strengths are 6 bits: min + step · (0 … 63)."""
    rank_half_frames: int = 31
    rank_limit: int = 20
    """A reference's peak is kept if fewer than this many within ± rank_half_frames are
    stronger (a sliding rank: shift invariant, no block borders)."""
    descriptor_frames: int = 4
    descriptor_bins: int = 3
    descriptor_bands: int = 55
    descriptor_step_neper: float = 0.5
    descriptor_clip_steps: int = 7
    """The descriptor: contrast pooled over 4 frames × 3 bins, 4 bits a cell, ± 7 steps."""
    segment_s: int = 90
    """A stored row covers this much audio. Landmarks and descriptor run on across its borders, so
    that it decides neither what is found nor what fits together; at most 1,048 (16 bits)."""
    min_clip_s: float = 1.0
    latest_of_a_key: int = 0
    """Of a key that comes more often than this in a volume only the latest postings stay, so that
    what is repeated all day is found where it came last; 0: such keys find nothing, as steady
    tones do. At most 16: of more none would vote. May change at any time: volumes of both kinds
    are searched alike."""
    query: QueryParams = QueryParams()
    search: SearchParams = SearchParams()

    @property
    def frames_per_s(self) -> float:
        """62.5."""
        return self.sample_rate_hz / self.hop_samples

    @property
    def half_frame_s(self) -> float:
        """Seconds in the unit of `Landmarks.time` (8 ms)."""
        return self.hop_samples / self.sample_rate_hz / 2

    @property
    def segment_frames(self) -> int:
        """Frames that start within a whole segment (5,625)."""
        return self.segment_s * self.sample_rate_hz // self.hop_samples

    @property
    def whole_segment_s(self) -> float:
        """Audio of a whole segment: as much of `segment_s` as is whole frames (90.0)."""
        return self.segment_frames * self.hop_samples / self.sample_rate_hz

    @property
    def descriptor_row_bytes(self) -> int:
        """Bytes of a packed descriptor row: two bands a byte, low nibble first (28)."""
        return (self.descriptor_bands + 1) // 2

    @property
    def digest(self) -> str:
        """12 hex digits over everything that decides what is stored.

        What is stored under another digest has to be made again.
        """
        return _digest(self)

    def n_frames(self, n_samples: int) -> int:
        """Whole frames in `n_samples` of audio; the last incomplete frame is not used."""
        if n_samples < self.n_fft_samples:
            return 0
        return 1 + (n_samples - self.n_fft_samples) // self.hop_samples


@functools.lru_cache(maxsize=16)
def _digest(params: Params) -> str:
    relevant = {
        field.name: getattr(params, field.name)
        for field in dataclasses.fields(params)
        if field.name not in ("query", "search", "min_clip_s", "latest_of_a_key")
    }
    # Where a recording is cut into rows changes nothing once they are joined. The number stays in
    # the text: what was stored before this was so keeps its digest.
    relevant["segment_s"] = 90
    text = ";".join(f"{name}={value!r}" for name, value in sorted(relevant.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


PARAMS = Params()
"""The parameters of everything that is stored today."""
