"""Recordings from Debian packages of music and speech, for a set that anybody can make anew.

    python -m tests.eval.packages FOLDER [PACKAGE...]

Downloads each package with apt-get (nothing is installed) and unpacks its audio to
FOLDER/PACKAGE. Without names: a selection of 90 MB that makes about two hours. Needs Debian or
Ubuntu with their archives (apt-get, dpkg-deb, tar); elsewhere, give folders of your own recordings
to ``tests.eval.build``.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.eval.audio import SUFFIXES

MUSIC = (
    "asc-music",
    "asterisk-moh-opsound-wav",
    "fretsonfire-songs-muldjord",
    "fretsonfire-songs-sectoid",
    "lordsawar-data",
    "wizznic-data",
    "xmoto-data",
    "zaz-data",
)
SPEECH = ("asterisk-core-sounds-en-wav",)
VOICES = ("asterisk-core-sounds-fr-wav",)


class NoPackagesError(RuntimeError):
    """This machine cannot download Debian packages."""


def fetch(folder: Path, names: Sequence[str]) -> list[Path]:
    """The packages' folders, downloaded where they are not there yet. Raises NoPackagesError."""
    for tool in ("apt-get", "dpkg-deb", "tar"):
        if shutil.which(tool) is None:
            raise NoPackagesError(
                f"{tool} is missing; give folders of recordings instead (MEDIA=...)"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            _unpack(folder, name)
    return [folder / name for name in names]


def _unpack(folder: Path, name: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as work:
        got = subprocess.run(
            ["apt-get", "download", "-q", name],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
        )
        packages = list(Path(work).glob("*.deb"))
        if not packages:
            raise NoPackagesError(f"apt-get cannot download {name}: {got.stderr.strip()[-300:]}")
        made = Path(work) / "audio"
        made.mkdir()
        archive = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", packages[0]], capture_output=True, check=True
        ).stdout
        # tar fails when one of the patterns finds nothing: what counts is what came out.
        subprocess.run(
            ["tar", "-x", "-C", made, "--wildcards", *(f"*{suffix}" for suffix in SUFFIXES)],
            input=archive,
            capture_output=True,
            check=False,
        )
        if not any(path.is_file() for path in made.rglob("*")):
            raise NoPackagesError(f"{name} holds no recordings")
        made.rename(folder / name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0].startswith("-"):
        print(__doc__)
        return 2
    try:
        fetch(Path(given[0]), given[1:] or (*MUSIC, *SPEECH, *VOICES))
    except NoPackagesError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
