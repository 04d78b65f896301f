"""Writes ``results/performance``: the lines, and where the time goes."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.gpu import AS_THEY_ARE, COMPILED, kernels, ready
from benchmarks.measure import Line, device
from benchmarks.performance import PHASES, kappa, operators, phases, scaling

Row = dict[str, Any]
COMMAND = "python -m benchmarks --report results/performance"


def write(folder: Path, lines: Sequence[Line]) -> None:
    """The report; lines that were not measured now stay as they were there."""
    folder.mkdir(parents=True, exist_ok=True)
    before = folder / "lines.json"
    known = {each["name"]: Line(**each) for each in json.loads(before.read_text())} if before.exists() else {}
    lines = list((known | {line.name: line for line in lines}).values())
    tables = {"scaling": scaling(), "phases": phases(), "operators": operators(), "kappa": kappa()}
    if ready():
        tables["gpu_kernels"] = kernels()
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: _short(value) for key, value in row.items()} for row in rows)
    if "gpu_kernels" not in tables and (folder / "gpu_kernels.csv").exists():  # made where there is a GPU
        with (folder / "gpu_kernels.csv").open() as file:
            tables["gpu_kernels"] = list(csv.DictReader(file))
    (folder / "lines.json").write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    draw(folder, tables)
    (folder / "report.md").write_text(text(lines, tables))


def text(lines: Sequence[Line], tables: dict[str, list[Row]]) -> str:
    parts = [
        "# How fast it is",
        f"`{COMMAND}` (with a benchmark's name, its lines and the tables anew), {device()}. Ours and each peer in "
        "turns, medians; ratios above 1 are ours. The machine is shared, so that single numbers vary by a fifth from "
        "run to run, ratios by a tenth."
        + (
            " Lines that name a GPU were measured there, by `python -m benchmarks gpu`."
            if "gpu_kernels" in tables
            else ""
        ),
        _table(
            ["comparison", "ours", "peer", "", "ratio", "asked for"],
            [[x.name, _short(x.ours), _short(x.peer), x.unit, _short(x.ratio), _verdict(x)] for x in lines],
        ),
        *_missed(lines, tables),
        "## Where the time goes",
        "![seconds by phase, and tokens a second](performance.png)",
        "Seconds of an iteration of 256 responses on the embedded model, micro-batches of 64 rows, four optimizer "
        "steps (TRePO's stride is 8 tokens, 2 continuations a cut):",
        _pivot(tables["phases"], "algorithm", "phase", (*PHASES, "rest")),
        "Of the operators, seconds; what is between them is Python and dispatch:",
        _pivot(tables["operators"], "work", "kind", tuple(dict.fromkeys(row["kind"] for row in tables["operators"]))),
        *(
            ["Of a GPU, a step of decoding 512 rows of SmolLM2-135M, milliseconds and kernels:", _rows(gpu)]
            if (gpu := tables.get("gpu_kernels"))
            else []
        ),
        "## Scaling",
        "Tokens a second, decoded and read at once (a forward pass for log-probabilities), of Llamas with random "
        "weights over 420 tokens, all responses of one length:",
        _rows(tables["scaling"]),
        "## kappa",
        "Decoded over trained tokens a second: what a token costs in a forward and backward pass over what it costs to "
        "decode.",
        _rows(tables["kappa"]),
    ]
    return "\n\n".join(parts) + "\n"


def _missed(lines: Sequence[Line], tables: dict[str, list[Row]]) -> list[str]:
    """Why a target is missed, from what was measured beside it."""
    decoding = {row["kind"]: row["seconds"] for row in tables["operators"] if row["work"] == "decoding"}
    update = {row["phase"]: row["seconds"] for row in tables["phases"] if row["algorithm"] == "GRPO"}
    found = []
    for line in (line for line in lines if line.ratio < line.target):
        if "generate" in line.name:
            shared = decoding["matrix products"] + decoding["attention"] + decoding["other operators"]
            found.append(
                f"- {line.name}: {_percent(shared / sum(decoding.values()))} of decoding are operators that `generate` "
                f"runs as well, row for row; copies are {_percent(decoding['copies'] / sum(decoding.values()))}, and "
                f"what lies between operators {_percent(decoding['between operators'] / sum(decoding.values()))}."
            )
        elif "roofline" in line.name and (own := _steps(tables, COMPILED if COMPILED in line.name else AS_THEY_ARE)):
            times = {row["kind"]: float(row["ms_a_step"]) for row in own}
            launched = sum(float(row["kernels_a_step"]) for row in own)
            found.append(
                f"- {line.name}: a step is {launched:,.0f} kernels, most of them so small that their number counts and "
                f"not the bytes that they move: they take {_short(sum(times.values()) - times['waiting'])} ms. The GPU "
                f"waits for {_short(times['waiting'])} ms a step: prompts are read, and of every 32 steps one is "
                "launched from Python and one captured. On 48 tokens a response."
            )
        elif "continuations" in line.name:
            found.append(
                f"- {line.name}: a continuation's token attends to its whole prefix, a sample's to half a response "
                "on average, and each fork copies the prefix's cache once a continuation."
            )
        elif "TRL" in line.name and line.unit == "s":
            floor = update["forward"] + update["backward"]
            found.append(
                f"- {line.name}: the forward and backward pass alone, which TRL makes as well, take {_short(floor)} s "
                f"here; with nothing else the ratio would be {_short(line.peer / floor)}. The rest is decoding."
            )
        elif "gradient noise" in line.name:
            found.append(
                f"- {line.name}: it is one more forward and backward pass over all responses, as long as the update's, "
                "and products for each group beside those for all."
            )
        elif "sweep" in line.name:
            found.append(f"- {line.name}: both times have the start in them, imports and the database, once a sweep.")
        else:
            found.append(f"- {line.name}.")
    return ["## What is missed, and why", "\n".join(found)] if found else []


def _steps(tables: dict[str, list[Row]], steps: str) -> list[Row]:
    """The GPU's kernels in steps of this kind, if they were counted."""
    return [row for row in tables.get("gpu_kernels", ()) if row["steps"] == steps]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def draw(folder: Path, tables: dict[str, list[Row]]) -> None:
    """Phases as stacked bars, and the rates against rows and length."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    bars, by_rows, by_length = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    names = list(dict.fromkeys(row["algorithm"] for row in tables["phases"]))
    left = [0.0] * len(names)
    shades = ("#0b3954", "#1f6f8b", "#5fa8b8", "#b9d6dc", "#f2c57c", "#e08e45", "#b5482f", "#6b2737", "#cccccc")
    for phase, shade in zip((*PHASES, "rest"), shades, strict=True):
        values = [row["seconds"] for row in tables["phases"] if row["phase"] == phase]
        bars.barh(names, values, left=left, color=shade, label=phase)
        left = [a + b for a, b in zip(left, values, strict=True)]
    bars.invert_yaxis()
    bars.set_xlabel("seconds an iteration of 256 responses")
    bars.legend(fontsize=7, ncols=3, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    for axis, by, label in ((by_rows, "rows", "rows at once"), (by_length, "length", "tokens a response")):
        rows = [row for row in tables["scaling"] if row["by"] == by]
        for key, name, shade in (("decoded_per_s", "decoded", "#b5482f"), ("read_per_s", "read at once", "#0b3954")):
            axis.plot([row[by] for row in rows], [row[key] for row in rows], "o-", color=shade, label=name)
        axis.set_xscale("log", base=2)
        axis.set_xticks([row[by] for row in rows], [str(row[by]) for row in rows])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_xlabel(label)
    by_rows.set_ylabel("tokens / s")
    by_rows.legend(fontsize=8, frameon=False)
    for axis in (bars, by_rows, by_length):
        axis.spines[["top", "right"]].set_visible(False)
    for kind in ("png", "svg"):
        figure.savefig(folder / f"performance.{kind}", dpi=150)


def _pivot(rows: Sequence[Row], line: str, column: str, columns: Sequence[str]) -> str:
    names = dict.fromkeys(row[line] for row in rows)
    values = {(row[line], row[column]): row["seconds"] for row in rows}
    sums = {name: sum(values[name, each] for each in columns) for name in names}
    body = [[name, *(_short(values[name, each]) for each in columns), _short(sums[name])] for name in names]
    return _table(["", *columns, "sum"], body)


def _rows(rows: Sequence[Row]) -> str:
    return _table(list(rows[0]), [[_short(value) for value in row.values()] for row in rows])


def _table(head: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _verdict(line: Line) -> str:
    return f"{line.target:.3g}" + ("" if line.ratio >= line.target else ", missed")


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
