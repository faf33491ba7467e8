"""What a program must do to be measured beside the others."""

import dataclasses
from pathlib import Path
from typing import Protocol


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A program's best answer, however weak.

    track     name of the recording
    offset_s  where the clip's first sample lies in it
    score     more is better; comparable between clips of one program only
    speed     tempo factor, 1 for programs that know none
    """

    track: str
    offset_s: float
    score: float
    speed: float = 1.0


class Peer(Protocol):
    """A program with an index of its own. Raises UnavailableError when it is made."""

    name: str
    version: str
    note: str

    def index(self, name: str, path: Path) -> None:
        """Take a recording (WAV, 44.1 kHz mono) into the index."""

    def ask(self, path: Path) -> Answer | None:
        """The best answer to a clip (WAV, 44.1 kHz mono)."""


class UnavailableError(Exception):
    """The program cannot run here; the message says why and what would help."""
