"""The conditions that clips are made under: what happens to a clip, and what is then true of it.

``PREPARED`` are those that the engine was tuned on; the rest is everything else that people do to
clips, to see whether it generalises.
"""

import dataclasses

from tests.eval.changes import (
    Step,
    applause,
    band,
    bass,
    chain,
    clipped,
    codec,
    comb,
    compressed,
    crackle,
    crowd,
    drifting,
    dropouts,
    ducked,
    hurried,
    inverted,
    noise,
    other_music,
    played,
    pumping,
    random_equaliser,
    ringtone,
    room,
    saturated,
    tilt,
    transposed,
    vocoded,
    voice,
    warped,
)

LENGTHS_S = (3.0, 5.0, 10.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """One way in which clips differ from their recordings.

    name       as in queries.csv
    family     of conditions, for tables
    step       what is done
    speed      tempo factor of the clip
    pitch      frequency factor of the clip
    prepared   one of those that the engine was tuned on
    lengths_s  clips of these lengths are made
    """

    name: str
    family: str
    step: Step
    speed: float = 1.0
    pitch: float = 1.0
    prepared: bool = False
    lengths_s: tuple[float, ...] = LENGTHS_S


def _semitones(n: float) -> float:
    return float(2.0 ** (n / 12.0))


def _prepared() -> list[Condition]:
    mp3_128 = codec("libmp3lame", 128)
    aac_96 = codec("aac", 96)

    def condition(
        name: str, family: str, step: Step, speed: float = 1.0, pitch: float = 1.0
    ) -> Condition:
        return Condition(name, family, step, speed, pitch, prepared=True)

    return [
        dataclasses.replace(
            condition("clean", "clean", mp3_128), lengths_s=(1.0, 2.0, 3.0, 5.0, 10.0, 20.0)
        ),
        condition("mp3_32", "codec", codec("libmp3lame", 32, 22_050)),
        condition("opus_24", "codec", codec("libopus", 24, 48_000)),
        condition("lowpass_4k", "filter", band(None, 4000.0, 6)),
        condition("clipped", "level", clipped(6.0)),
        *(condition(f"voice_{db}", "voice-over", chain(voice(db), aac_96)) for db in (10, 0, -5)),
        condition("pink_5", "noise", noise(1.0, 5.0)),
        condition("pink_0", "noise", noise(1.0, 0.0)),
        dataclasses.replace(
            condition("pink_-5", "noise", noise(1.0, -5.0)), lengths_s=(*LENGTHS_S, 20.0)
        ),
        *(condition(f"speed_{v:.2f}", "speed", played(v), v, v) for v in (0.98, 1.05, 1.10)),
        *(condition(f"tempo_{v:.2f}", "tempo", hurried(v), v) for v in (1.10, 0.92)),
        *(condition(f"pitch_{n:+d}", "pitch", transposed(n), 1.0, _semitones(n)) for n in (1, -2)),
        condition(
            "phone",
            "phone",
            chain(
                band(300.0, 3400.0),
                saturated(3.0),
                noise(1.0, 15.0),
                codec("libmp3lame", 24, 16_000),
            ),
        ),
        condition(
            "room_10", "room", chain(room(0.75, -3.0), band(150.0, 6000.0, 2), noise(1.0, 10.0))
        ),
        condition(
            "repost",
            "re-post",
            chain(played(1.04), voice(3.0), codec("aac", 64), codec("libopus", 32, 48_000)),
            1.04,
            1.04,
        ),
    ]


def _further() -> list[Condition]:
    opus_32 = codec("libopus", 32, 48_000)
    aac_48 = codec("aac", 48)
    speeds = [
        Condition(f"speed_{v:.2f}", "speed, wide", played(v), v, v)
        for v in (0.75, 0.85, 0.92, 1.02, 1.18, 1.25, 1.35)
    ]
    tempos = [
        *(
            Condition(f"tempo_{v:.2f}", "tempo, wide", hurried(v), v)
            for v in (0.85, 0.96, 1.05, 1.17)
        ),
        *(Condition(f"vocoder_{v:.2f}", "tempo, wide", vocoded(v), v) for v in (0.90, 1.12)),
    ]
    pitches = [
        Condition(f"pitch_{n:+g}", "pitch, wide", transposed(n), 1.0, _semitones(n))
        for n in (-2.5, -1, 0.5, 2)
    ]
    both = [
        Condition(
            f"tempo_{v:.2f}_pitch_{n:+d}",
            "tempo × pitch",
            chain(transposed(n), hurried(v)),
            v,
            _semitones(n),
        )
        for v, n in ((0.90, 1), (1.12, -2), (1.06, 2), (0.94, -1))
    ]
    edits = [
        Condition(
            "nightcore_1.25",
            "sped up, slowed",
            chain(played(1.25), tilt(1.5), codec("libmp3lame", 128)),
            1.25,
            1.25,
        ),
        *(
            Condition(
                f"slowed_{v:.2f}_reverb",
                "sped up, slowed",
                chain(played(v), room(2.2, 0.0), bass(6.0), codec("aac", 96)),
                v,
                v,
            )
            for v in (0.80, 0.88)
        ),
        Condition(
            "sped_1.15_voice",
            "sped up, slowed",
            chain(played(1.15), voice(6.0), aac_48),
            1.15,
            1.15,
        ),
    ]
    rooms = [
        Condition("room_small", "room", chain(room(0.3, 0.0), noise(1.0, 20.0))),
        Condition("room_large", "room", chain(room(1.4, -3.0), noise(1.0, 15.0))),
        Condition("cathedral", "room", room(4.0, -3.0)),
        Condition(
            "hall_crowd",
            "hall with crowd",
            chain(
                room(1.6, -2.0),
                crowd(3.0),
                applause(10.0),
                compressed(-18.0, 4.0, 0.01, 0.2),
                aac_48,
            ),
            lengths_s=(*LENGTHS_S, 20.0),
        ),
        Condition(
            "filmed",
            "filmed",
            chain(
                band(250.0, 7000.0, 2),
                saturated(1.5),
                room(0.5, -2.0),
                noise(1.0, 12.0),
                compressed(-20.0, 3.0, 0.01, 0.3),
                codec("aac", 64),
            ),
        ),
        Condition(
            "filmed_phone_call",
            "filmed",
            chain(room(0.4, 0.0), band(250.0, 3400.0), codec("libopencore_amrnb", 7.95, 8000)),
        ),
    ]
    uneven = [
        Condition("wow_flutter", "wow, drift", warped((0.6, 0.010), (7.0, 0.002))),
        Condition("wow_slow", "wow, drift", warped((0.25, 0.008))),
        Condition("drift", "wow, drift", drifting(0.006)),
        Condition("vinyl", "wow, drift", chain(warped((0.55, 0.003)), crackle(8.0))),
    ]
    levels = [
        Condition("dropouts", "drop-outs", chain(dropouts(0.15, 0.25), opus_32)),
        Condition("limiter", "level", chain(clipped(12.0), band(None, 9000.0), codec("aac", 96))),
        Condition("compressor", "level", compressed(-30.0, 8.0, 0.005, 0.15)),
        Condition("pumping", "level", pumping(2.1, 15.0)),
        Condition("tilt_bright", "filter", tilt(4.0)),
        Condition("tilt_dull", "filter", tilt(-4.0)),
        Condition("bass_boost", "filter", chain(bass(18.0), clipped(1.5))),
        Condition("equaliser", "filter", random_equaliser(12.0)),
        Condition("highpass_800", "filter", band(800.0, None)),
        Condition("comb", "filter", comb(0.0008, -0.8)),
        Condition("inverted", "filter", chain(inverted, codec("vorbis", 64))),
    ]
    codecs = [
        Condition("telephone", "phone", chain(band(300.0, 3400.0), codec("pcm_mulaw", 64, 8000))),
        Condition("mobile", "phone", codec("libopencore_amrnb", 7.95, 8000)),
        Condition(
            "mp3_twice",
            "codec",
            chain(codec("libmp3lame", 24, 16_000), codec("libmp3lame", 32, 22_050)),
        ),
        Condition("opus_12", "codec", codec("libopus", 12, 48_000)),
        Condition(
            "aac_opus", "codec", chain(codec("aac", 32, 22_050), codec("libopus", 16, 48_000))
        ),
        Condition("adpcm", "codec", codec("adpcm_ima_wav", 44, 11_025)),
    ]
    on_top = [
        Condition("music_5", "music on top", other_music(5.0)),
        Condition("music_0", "music on top", other_music(0.0)),
        Condition("applause_0", "noise, other", applause(0.0)),
        Condition("crowd_0", "noise, other", crowd(0.0)),
        Condition("white_0", "noise, other", noise(0.0, 0.0)),
        Condition("brown_-5", "noise, other", noise(2.0, -5.0)),
        Condition("ringtone_0", "noise, other", ringtone(0.0)),
        Condition("reaction", "voice-over", chain(ducked(-3.0, 9.0), aac_48)),
    ]
    two = [
        Condition(
            "speed_1.06_pink_0", "two changes", chain(played(1.06), noise(1.0, 0.0)), 1.06, 1.06
        ),
        Condition(
            "tempo_1.08_voice_0", "two changes", chain(hurried(1.08), voice(0.0), aac_48), 1.08
        ),
        Condition(
            "pitch_+2_room",
            "two changes",
            chain(transposed(2), room(0.6, 0.0), noise(1.0, 15.0)),
            1.0,
            _semitones(2),
        ),
        Condition(
            "speed_0.95_filmed",
            "two changes",
            chain(played(0.95), band(250.0, 7000.0, 2), room(0.5, 0.0), noise(1.0, 12.0), aac_48),
            0.95,
            0.95,
        ),
        Condition(
            "equaliser_voice_5", "two changes", chain(random_equaliser(9.0), voice(5.0), opus_32)
        ),
        Condition("room_music_5", "two changes", chain(room(0.5, 0.0), other_music(5.0))),
    ]
    groups = (speeds, tempos, pitches, both, edits, rooms, uneven, levels, codecs, on_top, two)
    return [condition for group in groups for condition in group]


PREPARED = {c.name: c for c in _prepared()}
FURTHER = {c.name: c for c in _further()}
CONDITIONS = PREPARED | FURTHER
