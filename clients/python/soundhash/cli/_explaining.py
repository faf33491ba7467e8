"""An explanation in words and in the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from soundhash.cli import _output as output

if TYPE_CHECKING:
    from soundhash import Explanation, MatchedPlace, ScoreTerm

_BAR = 22
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = "▁▂▃▄▅▆▇█"


def shorten(text: str, most: int) -> str:
    """At most so many columns of printable characters."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    if cell_len(clean) <= most:
        return clean
    return set_cell_size(clean, most - 1).rstrip() + "…"


def number(value: float) -> str:
    """With one digit after the point and a real minus."""
    return f"{value:.1f}".replace("-", "−")


def signed(value: float) -> str:
    """As `number`, with a plus."""
    return f"{value:+.1f}".replace("-", "−")


def probability(value: float) -> str:
    """Never quite certain."""
    return "over 99.9%" if value > 0.999 else f"{value:.1%}"


def places(why: Explanation) -> str:
    """What lies where, in a sentence."""
    place, match = why.place, why.match
    text = (
        f"{output.span(place.clip_start_s, place.clip_end_s)} of the clip is "
        f"{output.span(place.video_start_s, place.video_end_s)} of the video"
    )
    whole = match.clip_end_s - match.clip_start_s
    if whole > 1.2 * (place.clip_end_s - place.clip_start_s):
        text += f" (the match goes from {output.span(match.clip_start_s, match.clip_end_s)})"
    return text


def change(place: MatchedPlace) -> str:
    """How the clip was changed, in words."""
    told = []
    speed, semitones = place.speed - 1.0, 12.0 * math.log2(place.pitch)
    if abs(speed) >= 0.0005:
        told.append(f"{abs(speed):.1%} {'faster' if speed > 0 else 'slower'}")
    if abs(semitones) >= 0.05:
        told.append(f"{abs(semitones):.1f} semitones {'higher' if semitones > 0 else 'lower'}")
    return "played " + " and ".join(told) if told else "at its own speed and pitch"


def answered(why: Explanation) -> str:
    """The verdict in a few words."""
    above = why.place.score - why.match_score
    if above < 0:
        return "No: too little speaks for it"
    return "Yes" if above >= 2 else "Yes, by a little"


def covered(why: Explanation) -> str:
    """The share of the part that is the same sound."""
    return f"{why.place.parts.coverage:.0%}"


def ordered_terms(place: MatchedPlace) -> list[ScoreTerm]:
    """What any place starts with, then what speaks for this one."""
    return sorted(place.terms, key=lambda term: term.name != "bias")


def print_explanation(why: Explanation) -> None:
    """The evidence in the terminal."""
    place = why.place
    out = output.console()
    out.print(f"[bold]{output.linked(place.title, place.source_url)}[/]")
    out.print(f"{places(why)}, {change(place)}", soft_wrap=True)
    if why.match.on_air is not None:
        out.print(f"{output.named(why.match)}, {output.place(why.match)}", soft_wrap=True)
    out.print(
        f"{answered(why)}: score {number(place.score)}, answered from {why.match_score:.1f} on; "
        f"confidence {probability(place.confidence)}",
        soft_wrap=True,
    )
    rival = why.runners_up[0] if why.runners_up else None
    other = {term.name: term.contribution for term in rival.terms} if rival else {}
    terms = ordered_terms(place)
    most = max((abs(term.contribution) for term in terms), default=1.0) or 1.0
    rows = [
        [
            output.escape(term.description),
            f"[dark_orange]{_bar(term.contribution / most)}[/]",
            signed(term.contribution),
            signed(other[term.name]) if term.name in other else "",
        ]
        for term in terms
    ]
    rows.append(["[bold]score[/]", "", number(place.score), number(rival.score) if rival else ""])
    columns = ["what counts", "", "here", "next best"]
    output.print_table(columns, rows, right=("here", "next best"), whole=("",))
    offsets, pairs = why.offsets, why.aligned
    blocks = "".join(_HEIGHTS[round(7 * min(1.0, max(0.0, b.correlation)))] for b in why.blocks)
    facts = [
        ("same sound", f"{blocks}  {covered(why)} of the clip, by half seconds"),
        ("peaks", f"{pairs.total} of the clip's {why.clip_landmarks.total} lie on the video's"),
        (
            "pairs",
            f"{max(offsets.votes, default=0)} agree on one offset, "
            f"{offsets.background:.1f} on any other",
        ),
    ]
    if rival:
        verdict = "would be answered too" if rival.score >= why.match_score else "not answered"
        facts.append(
            (
                "next best",
                f"{shorten(rival.title, 60)} at {output.clock(rival.video_start_s)}, "
                f"score {number(rival.score)}: {verdict}",
            )
        )
    output.print_pairs(facts)


def _bar(share: float) -> str:
    eighths = round(8 * _BAR * min(1.0, abs(share)))
    text = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    return "−" + text if share < 0 else text
