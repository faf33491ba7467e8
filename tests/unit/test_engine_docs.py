"""docs/engine.md and the notebook say what is so: their code runs, and no name is left out."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from tests.media import encode
from tests.songs import cut, song

import soundhash_engine

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/engine.md").read_text()
NOTEBOOK = ROOT / "clients/python/examples/engine_notebook.py"


def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "songs").mkdir()
    for seed in (1, 2, 3):
        (tmp_path / f"songs/{seed}.wav").write_bytes(encode(song(30.0, seed)))
    (tmp_path / "clip.mp3").write_bytes(encode(cut(song(30.0, 2), 8.0, 6.0), "mp3", rate_hz=44100))
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    assert len(blocks) == 6
    exec(compile("\n".join(blocks), "docs/engine.md", "exec"), {"__name__": "docs"})
    told = capsys.readouterr().out.splitlines()
    # The second file is number 1; an MP3 begins a little early.
    assert re.match(r"1 [78]\.\d+ 1\.0 0\.99", told[0])
    assert told[-1] == "[1]"


def test_the_notebook_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(NOTEBOOK), run_name="__main__")
    told = capsys.readouterr().out
    assert "recording 5 from 21.5" in told
    assert "a stranger: no match" in told and "silence: SILENT_AUDIO" in told
    assert "from disk: recording 5 from 21.5" in told
    assert "removed: no match" in told
    assert "s of the medley is" in told


def test_the_notebook_is_cells_of_the_library_alone() -> None:
    text = NOTEBOOK.read_text()
    assert text.count("\n# %% ") >= 10
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", text, re.M))
    assert imported == {"json", "tempfile", "pathlib", "numpy", "soundhash_engine", "matplotlib"}


def test_the_page_names_everything_public() -> None:
    told = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`|```python\n", PAGE)))) | set(
        re.findall(r"engine\.(\w+)", PAGE)
    )
    # Types of what the named functions take and return, each described where it is defined.
    plain = {"AudioInfo", "IndexStatus", "Landmarks", "Params", "PcmFormat", "ScoreParts"}
    missing = set(soundhash_engine.__all__) - told - plain - {"SAMPLE_RATE_HZ", "Match"}
    assert not missing
