"""Fingerprints do not change by accident."""

import json

from tests.unit.golden.fingerprints import PATH, compute


def test_fingerprints_are_what_they_were() -> None:
    golden = json.loads(PATH.read_text())
    found = compute()
    # The tunes first: if they differ, the test's own signal does.
    for name, expected in golden.items():
        if name.startswith("tune"):
            assert found[name]["pcm_md5"] == expected["pcm_md5"]
    assert found == golden
