"""docs/settings.md says what settings.py says.

`python -m tests.contract.test_settings_doc` writes it anew (`make docs`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from soundhash_server.settings import DEFAULT_DATA_DIR, PREFIX, Settings

PAGE = Path(__file__).parents[2] / "docs/settings.md"
HEAD = """# Settings

Server, workers and `soundhash up` read these environment variables; sizes are in bytes, times in
seconds. A value that cannot be used is refused at start with the variable's name. The clients read
`SOUNDHASH_ADDRESS` and, for a job's own proxy, `SOUNDHASH_FETCH_PROXY`.

| variable | default | meaning |
| --- | --- | --- |
"""


def render() -> str:
    rows = []
    for spec in dataclasses.fields(Settings):
        default = str(int(spec.default) if isinstance(spec.default, bool) else spec.default)
        if spec.default == DEFAULT_DATA_DIR:
            default = "the user's data folder for `soundhash`"
        elif default:
            default = f"`{default}`"
        rows.append(f"| `{PREFIX}{spec.name.upper()}` | {default} | {spec.metadata['doc']} |")
    return HEAD + "\n".join(rows) + "\n"


def test_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == render(), "run `make docs`"


if __name__ == "__main__":
    PAGE.write_text(render())
