"""audiolocate (PyPI): pairs of spectral peaks, one recording at a time."""

import importlib
import importlib.metadata
from pathlib import Path
from typing import Any

from tests.bench.peers.base import Answer, UnavailableError


class Audiolocate:
    """Score: equal pairs at the best offset.

    Its own threshold asks each recording alone; the count is what compares recordings.
    """

    name = "audiolocate"
    note = "every recording asked in turn"

    def __init__(self) -> None:
        try:
            program = importlib.import_module("audiolocate")
        except ImportError as error:
            raise UnavailableError(f"not installed ({error}); it is on PyPI") from error
        self.version = importlib.metadata.version("audiolocate")
        self._program: Any = program.AudioFingerprint()
        self._recordings: dict[str, Any] = {}

    def _hashes(self, path: Path) -> Any:
        return self._program.fingerprint_audio(self._program.load_audio(path))[0]

    def index(self, name: str, path: Path) -> None:
        """See `Peer`."""
        self._recordings[name] = self._hashes(path)

    def ask(self, path: Path) -> Answer | None:
        """See `Peer`."""
        clip = self._hashes(path)
        best: Answer | None = None
        for name, hashes in self._recordings.items():
            found = self._program.match(hashes, clip)
            if found.match_count and (best is None or found.match_count > best.score):
                seconds = found.offset_frames * self._program.hop_length / self._program.sr
                best = Answer(name, seconds, float(found.match_count))
        return best
