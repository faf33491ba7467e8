"""The picture of an explanation, and its words."""

from __future__ import annotations

import dataclasses
import struct
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.bench.explained import example

from soundhash import Explanation
from soundhash.cli._drawing import png, svg
from soundhash.cli._drawing.explained import COLUMN_END, HEIGHT, WIDTH, draw
from soundhash.cli._drawing.scene import Bitmap, Dot, Rect, Scene, Text
from soundhash.cli._explaining import change, print_explanation, shorten

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def why() -> Explanation:
    return example()


@pytest.fixture(scope="module")
def bare(why: Explanation) -> Explanation:
    """Nothing that could be left out is there, and its title means harm."""
    none = dataclasses.replace(why.patches.clip, rows=0, bands=0, cells=b"")
    return dataclasses.replace(
        why,
        match=dataclasses.replace(why.match, title="<script>\x00$x_1$"),
        place=dataclasses.replace(why.place, title="<script>\x00$x_1$ & [red]" + "字" * 99),
        patches=dataclasses.replace(why.patches, clip=none, video=none),
        blocks=(),
        offsets=dataclasses.replace(why.offsets, votes=()),
        runners_up=(),
        match_score=99.0,
    )


def texts(scene: Scene) -> str:
    return "\n".join(one.text for one in scene.shapes if isinstance(one, Text))


def test_the_picture_says_what_a_person_asks(why: Explanation) -> None:
    scene = draw(why)
    said = texts(scene)
    for words in (
        "Is it “Made-up song 2”?",
        "Yes",
        "of the clip is 0:33.9",
        "6.0% faster and 1.0 semitones higher",
        f"answered from {why.match_score:.1f} on",
        "Next best places: “A mix of songs 2 and 5”",
        "peaks are also in the clip",
        "92% of the clip",
        "from its stored fingerprint",
        "no audio is kept",
    ):
        assert words in said, words
    assert all(term.description in said for term in why.place.terms)


def test_everything_lies_within_the_picture(why: Explanation, bare: Explanation) -> None:
    for scene in (draw(why), draw(bare)):
        for one in scene.shapes:
            match one:
                case Rect() | Bitmap():
                    assert one.x >= 0 and one.x + one.width <= WIDTH
                    assert one.y >= 0 and one.y + one.height <= HEIGHT
                case Dot():
                    assert 0 <= one.x <= WIDTH and 0 <= one.y <= HEIGHT
                case Text():
                    assert 0 <= one.x <= COLUMN_END and 0 <= one.y <= HEIGHT


def test_aligned_peaks_stand_above_one_another(why: Explanation) -> None:
    both = [one for one in draw(why).shapes if isinstance(one, Dot) and "in both" in one.tip]
    clip = [dot.x for dot in both if dot.y < 400]
    video = [dot.x for dot in both if dot.y > 400]
    assert len(clip) == pytest.approx(why.aligned.total, abs=3)
    assert len(clip) == pytest.approx(len(video), abs=3)
    far = [x for x in clip if min(abs(x - other) for other in video) > 4]
    assert len(far) <= 3


def test_svg_and_html_are_sound_and_need_nothing_else(why: Explanation, bare: Explanation) -> None:
    for one in (why, bare):
        root = ET.fromstring(svg.svg(draw(one)))
        assert root.tag == f"{SVG}svg"
        links = [image.get("href") or "" for image in root.iter(f"{SVG}image")]
        assert all(link.startswith("data:image/png;base64,") for link in links)
        assert len(links) == (2 if one is why else 0)
        assert not list(root.iter(f"{SVG}script"))
        page = svg.page(draw(one))
        assert "<script" not in page and "http://www.w3.org/2000/svg" in page
        assert page.count("http") == 1
        HTMLParser().feed(page)


def test_png_is_written(why: Explanation, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    hostile = dataclasses.replace(why, place=dataclasses.replace(why.place, title="$\\frac 字"))
    path = tmp_path / "why.png"
    png.write(draw(hostile), path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (2 * WIDTH, 2 * HEIGHT)


def test_words_in_the_terminal(
    why: Explanation, bare: Explanation, capsys: pytest.CaptureFixture[str]
) -> None:
    print_explanation(why)
    said = capsys.readouterr().out
    assert said.startswith("Made-up song 2\n")
    for words in ("peaks lie on one another", "92% of the clip", "A mix of songs 2 and 5"):
        assert words in said, words
    print_explanation(bare)
    assert "No: too little speaks for it" in capsys.readouterr().out


def test_how_a_clip_was_changed(why: Explanation) -> None:
    place = dataclasses.replace(why.place, speed=1.0, pitch=1.0)
    assert change(place) == "at its own speed and pitch"
    assert change(dataclasses.replace(place, speed=0.9)) == "played 10.0% slower"
    lower = dataclasses.replace(place, pitch=2 ** (-2 / 12))
    assert change(lower) == "played 2.0 semitones lower"


def test_titles_are_cut_by_what_they_take() -> None:
    assert shorten("short", 10) == "short"
    assert shorten("a\x1b[31m\nb", 20) == "a [31m b"
    assert shorten("字" * 30, 11) == "字" * 5 + "…"


def test_a_missing_extra_is_said(
    why: Explanation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import typer

    from soundhash.cli._explain import _write

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(typer.Exit):
        _write(why, tmp_path / "why.png")
    assert "soundhash[draw]" in capsys.readouterr().err
    _write(why, tmp_path / "why.html")
    with pytest.raises(typer.Exit):
        _write(why, tmp_path / "none" / "why.html")
    assert "cannot be written" in capsys.readouterr().err
