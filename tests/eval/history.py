"""What every change to the engine did: key figures of each run, one JSON line each.

python -m tests.eval.history        print them as a table
"""

import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.eval.data import digest

HISTORY = Path(__file__).parent / "history.jsonl"


def commit() -> str:
    """The commit that is measured, with a + for changes that are not committed."""

    def git(*arguments: str) -> str:
        run = subprocess.run(
            ["git", *arguments], cwd=HISTORY.parent, capture_output=True, text=True, check=False
        )
        return run.stdout.strip()

    changed = git("status", "--porcelain", "--", "../../server/soundhash_engine")
    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + ("+" if changed else "")


def line(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """The key figures of a run; ``folder``: the set."""
    everything, unindexed = summary["all"], summary["unindexed"]
    groups = summary["groups"]
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "set": folder.name,
        "digest": digest(folder),
        "hours": round(summary["hours"], 2),
        "clips": everything["clips"],
        "unindexed": unindexed["clips"],
        "recall": round(everything["recall_percent"], 2),
        "recall_prepared": round(groups.get("prepared", everything)["recall_percent"], 2),
        "recall_unprepared": round(groups.get("unprepared", everything)["recall_percent"], 2),
        "recall_at_0.1_percent_false": round(
            summary["at_false_rate"]["0.001"]["recall_percent"], 2
        ),
        "false": unindexed["false"],
        "published_recall": round(summary["published"]["recall_percent"], 2),
        "published_false": summary["published"]["false"],
        "wrong": everything["wrong"],
        "offset_error_ms": round((everything["offset_error_ms"] or {"median": 0})["median"], 1),
        "offset_error_p95_ms": round((everything["offset_error_ms"] or {"p95": 0})["p95"], 1),
        "latency_ms": round(everything["latency_ms"]["median"], 1),
        "latency_p95_ms": round(everything["latency_ms"]["p95"], 1),
        "unindexed_p95_ms": round((unindexed["latency_ms"] or {"p95": 0})["p95"], 1),
    }


def append(path: Path, folder: Path, summary: dict[str, Any]) -> None:
    """Add a run."""
    with path.open("a") as file:
        file.write(json.dumps(line(folder, summary)) + "\n")


def read(path: Path = HISTORY) -> list[dict[str, Any]]:
    """All runs, oldest first."""
    if not path.exists():
        return []
    return [json.loads(text) for text in path.read_text().splitlines() if text]


def main() -> int:
    """Entry point."""
    for run in read():
        print("  ".join(f"{name} {value}" for name, value in run.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
