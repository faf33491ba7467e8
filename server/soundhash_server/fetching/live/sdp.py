"""What a description of an RTSP session says about its sound (SDP, RFC 8866)."""

from __future__ import annotations

from dataclasses import dataclass, field

_FIXED = {
    0: "PCMU/8000",
    8: "PCMA/8000",
    9: "G722/8000",
    10: "L16/44100/2",
    11: "L16/44100/1",
    14: "MPA/90000",
    33: "MP2T/90000",
}
"""Payload types with a meaning of their own (RFC 3551, 6)."""


@dataclass(frozen=True, slots=True)
class Track:
    """One medium of a session.

    encoding: in capitals. parameters: names in lower case. control: where it is set up, as it
    stands there; empty for the session's own address.
    """

    kind: str
    payload: int
    encoding: str
    rate_hz: int
    channels: int
    control: str
    parameters: dict[str, str] = field(default_factory=dict)


def tracks_of(text: str) -> tuple[list[Track], str]:
    """The media in a description, each with the first of its formats, and the session's control
    address. What cannot be read is left out."""
    sections: list[list[str]] = [[]]
    for line in map(str.strip, text.splitlines()):
        if line.startswith("m="):
            sections.append([])
        sections[-1].append(line)
    session = _attribute(sections[0], "control")
    found = [track for lines in sections[1:] if (track := _track(lines)) is not None]
    return found, session


def _track(lines: list[str]) -> Track | None:
    words = lines[0][2:].split()
    if len(words) < 4 or not words[3].isdecimal():
        return None
    payload = int(words[3])
    mapped = _attribute(lines, f"rtpmap:{payload}", " ") or _FIXED.get(payload, "")
    encoding, *numbers = mapped.split("/")
    if not encoding or not all(number.isdecimal() and len(number) < 7 for number in numbers):
        return None
    return Track(
        kind=words[0],
        payload=payload,
        encoding=encoding.upper(),
        rate_hz=int(numbers[0]) if numbers else 0,
        channels=int(numbers[1]) if len(numbers) > 1 else 1,
        control=_attribute(lines, "control"),
        parameters=_parameters(_attribute(lines, f"fmtp:{payload}", " ")),
    )


def _attribute(lines: list[str], name: str, separator: str = ":") -> str:
    start = f"a={name}{separator}"
    return next((line[len(start) :].strip() for line in lines if line.startswith(start)), "")


def _parameters(text: str) -> dict[str, str]:
    pairs = (one.partition("=") for one in text.split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name.strip()}
