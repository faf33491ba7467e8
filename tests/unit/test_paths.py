"""Names of files as text."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundhash_server.paths import path_to_text, text_to_path


@given(st.binary(max_size=60))
def test_every_name_comes_back(name: bytes) -> None:
    path = os.fsdecode(name)
    text = path_to_text(path)
    text.encode()
    assert text_to_path(text) == path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"a b/c.mp3", "a b/c.mp3"),
        ("Größe ♫".encode(), "Größe ♫"),
        (b"caf\xe9", "caf\\xe9"),
        (b"back\\slash", "back\\\\slash"),
        (b"\\xe9", "\\\\xe9"),
        (b"\\\xe9", "\\\\\\xe9"),
    ],
)
def test_names_as_they_are_written(name: bytes, text: str) -> None:
    assert path_to_text(os.fsdecode(name)) == text
