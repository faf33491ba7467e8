"""Names of files as text that databases and messages can hold, and back.

Names on disk are bytes without any promise. Ordinary ones stay as they are; bytes that are no
UTF-8 become ``\\xHH``, and so that this can be undone, a backslash becomes two.
"""

from __future__ import annotations

import re

_ESCAPED = re.compile(r"\\(\\|x([0-9a-f]{2}))")
_STRAY = re.compile(r"[\udc80-\udcff]")


def path_to_text(path: str) -> str:
    """A path as Python has it (surrogates for stray bytes) as plain text."""
    return _STRAY.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", path.replace("\\", "\\\\"))


def text_to_path(text: str) -> str:
    """The path behind such a text."""
    return _ESCAPED.sub(lambda found: chr(0xDC00 + int(found[2], 16)) if found[2] else "\\", text)
