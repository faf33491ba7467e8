"""SoundHash's engine, asked as the others are."""

from pathlib import Path

from soundhash_engine import EngineError, Index, MatchOptions, match
from soundhash_engine.warm import warm
from tests.bench.peers.base import Answer
from tests.eval.data import fingerprint, read_pcm


class SoundHash:
    """Everything indexed is sealed at the first clip."""

    name = "SoundHash"
    version = "this commit"
    note = "every speed, tempo and pitch"

    def __init__(self) -> None:
        warm()
        self._index = Index()
        self._names: list[str] = []

    def index(self, name: str, path: Path) -> None:
        """See `Peer`."""
        self._index.apply([(len(self._names), 1, fingerprint(path))])
        self._names.append(name)

    def ask(self, path: Path) -> Answer | None:
        """See `Peer`."""
        if self._index.status().tail_hours:
            self._index.seal()
        try:
            found = match(
                self._index.snapshot(), read_pcm(path), MatchOptions(top=1, min_confidence=0.0)
            )
        except EngineError:
            return None
        for best in found.matches:
            start_s = best.video_start_s - best.speed * best.clip_start_s
            return Answer(self._names[best.recording_id], start_s, best.score, best.speed)
        return None
