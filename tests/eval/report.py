"""docs/accuracy.md and its plots, from the results of measurements.

    python -m tests.eval.report RESULTS [--out docs]

RESULTS is a folder with result-*.json (``tests.eval.run``) and, where they were measured,
calibration.json (``tests.eval.calibrate``), ceiling.json (``tests.eval.ceiling``) and peers.json
(``tests.bench.peers``). The same results give the same files.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.eval.history import HISTORY, read

BLUE, ORANGE, GREY, GREEN, RED = "#1f6fb2", "#e08214", "#8a8a8a", "#3a8f4c", "#b2182b"
LEAST_FALSE = 2e-4
"""Where the logarithmic axis shows no false answer at all."""


def _axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.set_title(title, fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    # Without a date and with fixed ids, so that equal results give equal files.
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def plot_curve(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Recall against the share of unindexed clips that are answered."""
    figure, axes = _axes(7.0, 4.2, "Recall against false answers")
    for (name, result), colour in zip(results.items(), (BLUE, ORANGE, GREEN, RED), strict=False):
        points = np.array(result["curve"])
        false = np.maximum(points[:, 2], LEAST_FALSE)
        best = np.maximum.accumulate(100.0 * points[:, 1])
        axes.step(false, best, where="post", color=colour, label=name)
        at = result["unindexed"]["percent"] / 100.0
        axes.plot(
            max(at, LEAST_FALSE),
            result["all"]["recall_percent"],
            "o",
            color=colour,
            label=f"{name}: at the engine's threshold",
        )
    axes.axvline(1e-3, color=GREY, linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([LEAST_FALSE, 1e-3, 1e-2, 1e-1], ["none", "0.1 %", "1 %", "10 %"])
    axes.set_xlim(LEAST_FALSE * 0.9, 0.2)
    axes.set_ylim(min(80.0, *(r["all"]["recall_percent"] - 5 for r in results.values())), 100)
    axes.set_xlabel("clips of recordings that are not indexed, answered")
    axes.set_ylabel("clips found, %")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    _save(figure, path)


def plot_conditions(result: dict[str, Any], path: Path) -> None:
    """A bar for every condition, worst at the top, with the 95 % interval."""
    rows = sorted(result["conditions"].items(), key=lambda item: -item[1]["recall_percent"])
    figure, axes = _axes(7.5, 1.2 + 0.17 * len(rows), "Found, by condition")
    at = np.arange(len(rows))
    recall = np.array([row["recall_percent"] for _, row in rows])
    bounds = np.array([row["recall_bounds_percent"] for _, row in rows])
    colours = [BLUE if row["prepared"] else ORANGE for _, row in rows]
    axes.barh(at, recall, color=colours, height=0.7)
    errors = np.abs(bounds.T - recall)
    axes.errorbar(recall, at, xerr=errors, fmt="none", ecolor="#333333", elinewidth=0.7)
    axes.set_yticks(at, [name for name, _ in rows], fontsize=7)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(max(0.0, float(np.floor(bounds.min() / 10.0) * 10.0)), 100.0)
    axes.set_xlabel("clips found, % (line: 95 % interval)")
    for colour, label in ((BLUE, "the engine was tuned on it"), (ORANGE, "it was not")):
        axes.barh([-9], [0], color=colour, label=label)
    figure.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
    _save(figure, path)


def plot_reliability(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """How often answers of each confidence are right."""
    figure, axes = _axes(5.2, 4.6, "What a confidence means")
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1)
    axes.fill_between([0, 100], [-5, 95], [5, 105], color=GREY, alpha=0.15, label="±5 points")
    for i, (name, rows) in enumerate(curves.items()):
        colour = plt.get_cmap("viridis")(0.15 + 0.7 * i / max(1, len(curves) - 1))
        said, right, low, high = (
            100.0 * np.array([row[key] for row in rows])
            for key in ("confidence", "right", "low", "high")
        )
        axes.errorbar(
            said,
            right,
            yerr=[np.maximum(right - low, 0), np.maximum(high - right, 0)],
            fmt="o-",
            markersize=4,
            linewidth=1,
            elinewidth=0.6,
            color=colour,
            label=name,
        )
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 102)
    axes.set_xlabel("confidence of the answer, %")
    axes.set_ylabel("answers that are right, %")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    _save(figure, path)


WORST = 24
"""Conditions in the plot of what limits them."""


def worst(ceiling: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """Conditions and lengths of which least is found, with the three shares."""
    rows = [
        (f"{condition}, {length} s", row)
        for condition, lengths in ceiling["conditions"].items()
        for length, row in lengths.items()
        if row["clips"] >= 5 and row["found"] < 100.0
    ]
    return sorted(rows, key=lambda item: (item[1]["found"], item[0]))[:WORST]


def plot_ceiling(ceiling: dict[str, Any], path: Path) -> None:
    """Of the worst conditions: what the score, the search and both reach."""
    rows = worst(ceiling)[::-1]
    figure, axes = _axes(7.5, 1.3 + 0.24 * len(rows), "What limits recall")
    at = np.arange(len(rows))
    shares = {key: np.array([row[key] for _, row in rows]) for key in SHARES}
    axes.barh(at, shares["found"], color=BLUE, height=0.62, label=SHARES["found"])
    axes.plot(shares["looked_at"], at, "|", color=ORANGE, markersize=11, markeredgewidth=2.5)
    axes.plot(shares["placed"], at, "D", color=GREEN, markersize=5)
    axes.plot([], [], "|", color=ORANGE, markeredgewidth=2.5, label=SHARES["looked_at"])
    axes.plot([], [], "D", color=GREEN, label=SHARES["placed"])
    axes.set_yticks(at, [name for name, _ in rows], fontsize=7)
    axes.set_xlim(0, 102)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("clips, %")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    _save(figure, path)


SHARES = {
    "placed": "believed when told the place",
    "looked_at": "place found by the search",
    "found": "found and believed",
}


def plot_history(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Recall of every recorded run."""
    figure, axes = _axes(7.0, 3.6, "What each change did")
    sets = list(dict.fromkeys(run["set"] for run in runs))
    for name, colour in zip(sets, (BLUE, ORANGE, GREEN, RED), strict=False):
        part = [(i, run) for i, run in enumerate(runs) if run["set"] == name]
        for key, style in (("recall", "o-"), ("recall_at_0.1_percent_false", "o:")):
            axes.plot(
                [i for i, _ in part],
                [run[key] for _, run in part],
                style,
                color=colour,
                markersize=4,
                label=f"{name}, {'at the threshold' if key == 'recall' else '≤ 0.1 % false'}",
            )
    axes.set_xticks(range(len(runs)), [run["commit"][:7] for run in runs], rotation=60, fontsize=7)
    axes.set_ylabel("clips found, %")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, path)


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _figures_row(name: str, row: dict[str, Any], lengths: Sequence[str]) -> list[str]:
    error = row["offset_error_ms"] or {}
    speed = row["speed_error_percent"] or {}
    low, high = row["recall_bounds_percent"]
    return [
        name,
        str(row["clips"]),
        *(_number(row["by_length_percent"].get(length)) for length in lengths),
        f"{_number(row['recall_percent'])} ({_number(low)} … {_number(high)})",
        str(row["wrong"]),
        f"{_number(error.get('median'))} / {_number(error.get('p95'), 0)}",
        _number(speed.get("p95"), 2),
    ]


def _section(name: str, result: dict[str, Any]) -> str:
    """Text and tables of one set."""
    everything, absent, public = result["all"], result["unindexed"], result["published"]
    lengths = list(everything["by_length_percent"])
    header = [
        "",
        "clips",
        *(f"{length} s" for length in lengths),
        "found % (95 %)",
        "wrong",
        "offset ms, median / p95",
        "speed %, p95",
    ]
    rows = [
        _figures_row(label, row, lengths)
        for label, row in [
            *result["families"].items(),
            *((f"**{group}**", row) for group, row in result["groups"].items()),
            ("**all**", everything),
        ]
    ]
    false = [
        [
            "answers (`match`)",
            _number(everything["recall_percent"], 2),
            f"{absent['false']} of {absent['clips']}",
            " … ".join(_number(x, 3) for x in absent["bounds_percent"]),
            str(absent["shared"]),
        ],
        [
            "sure enough to publish",
            _number(public["recall_percent"], 2),
            f"{public['false']} of {absent['clips']}",
            " … ".join(_number(x, 3) for x in public["bounds_percent"]),
            str(public["shared"]),
        ],
    ]
    rates = [
        [
            "none" if float(rate) == 0 else f"≤ {100 * float(rate):g} %",
            _number(at["recall_percent"], 2),
            _number(at["score"], 2),
        ]
        for rate, at in result["at_false_rate"].items()
    ]
    latency = everything["latency_ms"]
    wasted = absent["latency_ms"] or {"median": float("nan"), "p95": float("nan")}
    unindexed_head = ["", "recall %", "false", "95 %, %", "same sound elsewhere"]
    return f"""## Set `{name}`

{result["hours"]:.1f} h indexed, {everything["clips"]} clips of them, {absent["clips"]} of other
recordings, most by the same makers.

{_table(header, rows)}

{_table(unindexed_head, false)}

{_table(["false answers allowed", "recall %", "at a score of"], rates)}

Engine time a clip, median / p95: {latency["median"]:.1f} / {latency["p95"]:.1f} ms where the clip
is indexed, {wasted["median"]:.1f} / {wasted["p95"]:.1f} ms where it is not.

![found, by condition](accuracy/conditions-{name}.svg)
"""


def write(results_folder: Path, out: Path) -> None:
    """Write accuracy.md and accuracy/*.svg into ``out``."""
    mpl.rcParams.update({"svg.hashsalt": "soundhash", "svg.fonttype": "none", "font.size": 9})
    pictures = out / "accuracy"
    pictures.mkdir(parents=True, exist_ok=True)
    results = {
        path.stem.removeprefix("result-"): json.loads(path.read_text())
        for path in sorted(results_folder.glob("result-*.json"))
    }
    if not results:
        raise FileNotFoundError(f"{results_folder} has no result-*.json: run tests.eval.run first")
    plot_curve(results, pictures / "curve.svg")
    for name, result in results.items():
        plot_conditions(result, pictures / f"conditions-{name}.svg")
    parts = [
        f"""# Accuracy

How well the engine finds, measured with `make eval` ([tests/eval](../tests/eval)); this page is
written by it. Clips are cut from real recordings at random places and changed in the way that
their condition says ([degrade.py](../tests/eval/degrade.py)). *Found* is an answer at the engine's
threshold with the right recording and the offset within 0.5 s, or a place where the recordings
sound the same (log-band correlation of at least 0.9: loops and reused passages have no single
right place). *False* is any answer to a clip whose recording is not indexed, unless the answered
place is the same piece in another mix or version (correlation of at least 0.7, or named in
[twins.txt](../tests/eval/twins.txt)); those are counted apart. Intervals are Clopper–Pearson's,
95 %.

![recall against false answers](accuracy/curve.svg)

{"".join(_section(name, result) for name, result in results.items())}"""
    ]
    curves = {name: result["reliability"] for name, result in results.items()}
    calibration = results_folder / "calibration.json"
    if calibration.exists():
        rows = json.loads(calibration.read_text())
        curves = {f"{row['hours']:,.0f} h": row["reliability"] for row in rows}
    plot_reliability(curves, pictures / "reliability.svg")
    parts.append(
        """## Confidence

The confidence of a best answer, and how often such answers are right, where half of the clips are
indexed. Larger catalogues are filled up with made-up recordings.

![reliability](accuracy/reliability.svg)

"""
        + _table(
            ["", "answers", "said %", "right %", "95 %"],
            [
                [
                    name,
                    str(row["answers"]),
                    _number(100 * row["confidence"]),
                    _number(100 * row["right"]),
                    f"{_number(100 * row['low'])} … {_number(100 * row['high'])}",
                ]
                for name, rows_ in curves.items()
                for row in rows_
            ],
        )
        + "\n"
    )
    ceiling_path = results_folder / "ceiling.json"
    if ceiling_path.exists():
        ceiling = json.loads(ceiling_path.read_text())
        plot_ceiling(ceiling, pictures / "ceiling.svg")
        table = [
            [name, str(row["clips"]), *(_number(row[key]) for key in SHARES)]
            for name, row in [*worst(ceiling), ("**all**", ceiling["all"])]
        ]
        parts.append(
            f"""## What limits it

Of the clips of `{ceiling["set"]}` ([ceiling.py](../tests/eval/ceiling.py)): how many the score
believes when it is told the right place, speed and pitch; at how many the search looks at that
place by itself; and how many are found. Where the first is low, noise or echo has left too little
evidence at the right place, and only better evidence would help. Where it is high and the second
is low, the search misses: of the landmarks that survive, too few triples do.

![what limits recall](accuracy/ceiling.svg)

"""
            + _table(["", "clips", *(f"{share} %" for share in SHARES.values())], table)
            + "\n"
        )
    peers = results_folder / "peers.json"
    if peers.exists():
        parts.append(
            "## Beside others\n\n" + json.loads(peers.read_text())["markdown"].strip() + "\n"
        )
    runs = read(HISTORY)
    if runs:
        plot_history(runs, pictures / "history.svg")
        keys = ["date", "commit", "set", "recall", "recall_at_0.1_percent_false", "false"]
        keys += ["published_recall", "published_false", "offset_error_ms", "latency_ms"]
        parts.append(
            "## History\n\nEvery recorded run (`RECORD=1`), from "
            "[history.jsonl](../tests/eval/history.jsonl). Since commit 01d21b1 answers with the "
            "versions of a piece that twins.txt names are counted apart from false ones: the "
            "figures at a false rate jump there.\n\n"
            "![history](accuracy/history.svg)\n\n"
            + _table(
                [key.replace("_", " ") for key in keys],
                [[str(run.get(key, "–")) for key in keys] for run in runs],
            )
            + "\n"
        )
    (out / "accuracy.md").write_text("\n".join(parts))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args(arguments)
    write(options.results, options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
