"""What can go wrong in the engine, each with a reason to test on and a remedy to show."""

from typing import ClassVar


class EngineError(Exception):
    """Base of all errors that the engine raises on purpose.

    `reason` is UPPER_SNAKE and stable, `message` says what happened, `remedy` what to do.
    """

    default_reason: ClassVar[str] = "ENGINE_ERROR"
    default_remedy: ClassVar[str] = "Report this with the input that caused it."

    def __init__(self, message: str, *, reason: str | None = None, remedy: str | None = None):
        super().__init__(message)
        self.message = message
        self.reason = self.default_reason if reason is None else reason
        self.remedy = self.default_remedy if remedy is None else remedy

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not pickle by themselves.
        return (_rebuild, (type(self), self.message, self.reason, self.remedy))


def _rebuild(kind: type[EngineError], message: str, reason: str, remedy: str) -> EngineError:
    return kind(message, reason=reason, remedy=remedy)


class DecodeError(EngineError):
    """Media cannot be turned into sound.

    Reasons: EMPTY_MEDIA, NOT_MEDIA, NO_AUDIO_STREAM, TRUNCATED_MEDIA (nothing decodable),
    DECODE_FAILED, MEDIA_TOO_LONG, MOOV_AT_END (live streams only).
    """

    default_reason = "DECODE_FAILED"
    default_remedy = "Check that the file plays elsewhere, or convert it to WAV, FLAC or MP3."


class ClipTooShort(EngineError):  # noqa: N818 - a condition, not a mistake
    """A clip is shorter than `Params.min_clip_s`."""

    default_reason = "CLIP_TOO_SHORT"
    default_remedy = "Send at least one second of audio; three to ten seconds match best."


class ClipTooLong(EngineError):  # noqa: N818 - a condition, not a mistake
    """A clip is longer than the caller allows."""

    default_reason = "CLIP_TOO_LONG"
    default_remedy = "Send a shorter clip, or stream the audio, or ingest it as a recording."


class SilentAudio(EngineError):  # noqa: N818 - a condition, not a mistake
    """A clip in which nothing stands out: no landmark at all."""

    default_reason = "SILENT_AUDIO"
    default_remedy = "Check that the clip has sound in it."


class ParamsMismatch(EngineError):  # noqa: N818 - a condition, not a mistake
    """A fingerprint was made with other parameters than those it is to be used with."""

    default_reason = "PARAMS_MISMATCH"
    default_remedy = "Fingerprint the recording again with the current parameters."


class CorruptFingerprint(EngineError):  # noqa: N818 - a condition, not a mistake
    """Stored fingerprint bytes are damaged or incomplete."""

    default_reason = "CORRUPT_FINGERPRINT"
    default_remedy = "Fingerprint the recording again."
