"""The words of ``results/performance/report.md``, from what was measured."""

from collections.abc import Sequence
from typing import Any

from benchmarks.gpu import AS_THEY_ARE, COMPILED
from benchmarks.measure import Line
from benchmarks.performance import PHASES

Row = dict[str, Any]
COMMAND = "python -m benchmarks --report results/performance"
FIRST = ("transformers.generate", "TRL", "the logits of all tokens at once")  # peers on page one


def text(lines: Sequence[Line], tables: dict[str, list[Row]], machine: str) -> str:
    """The report in Markdown.

    Args:
        tables: rows of scaling, phases, operators, kappa and, where a GPU was measured, gpu_kernels.
        machine: what the numbers hold for.
    """
    parts = [
        "# How fast it is",
        "**Question.** How fast are sampling and training here, and how much memory do they take, compared with "
        "libraries that do the same?",
        f"**Answer.** {_answer(lines)}",
        _comparisons([line for line in lines if any(peer in line.name for peer in FIRST)]),
        "A **ratio** above 1 means that ours is better: faster, shorter or smaller. The **target** is the ratio that "
        "was asked for. Numbers are medians; ours and its peer are measured in turns.",
        f"Measured with {machine}. The machine is shared: single numbers vary by a fifth from run to run, ratios by a "
        "tenth. Lines that name a GPU were measured on that GPU, by `python -m benchmarks gpu`.",
        f"Made by `{COMMAND}`; with a benchmark's name it measures only its lines. "
        "`python -m benchmarks --rewrite results/performance` writes this page from the files beside it and measures "
        "nothing.",
        "## All comparisons",
        _comparisons(lines),
        *_missed(lines, tables),
        "## Where the time goes",
        "![seconds by phase, and tokens a second](performance.png)",
        "Seconds of one iteration of 256 responses with the embedded model, micro-batches of 64 rows and four "
        "optimizer steps. TRePO cuts every 8 tokens and samples 2 continuations per cut. Prefill reads prompts, decode "
        "generates token by token, log-probs is the pass before the update ([phases.csv](phases.csv)):",
        _pivot(tables["phases"], "algorithm", "phase", (*PHASES, "rest")),
        "Seconds by kind of PyTorch operator; the time between operators is Python and dispatch "
        "([operators.csv](operators.csv)):",
        _pivot(tables["operators"], "work", "kind", tuple(dict.fromkeys(row["kind"] for row in tables["operators"]))),
        *(
            [
                "Kernels of a GPU and their milliseconds, per step of decoding 512 rows of SmolLM2-135M: "
                "[gpu_kernels.csv](gpu_kernels.csv)."
            ]
            if "gpu_kernels" in tables
            else []
        ),
        "## Scaling",
        "Tokens a second by number of rows, length of responses and size of the model: [scaling.csv](scaling.csv) and "
        "the two right panels of the figure. Decoded: sampled one by one. Read at once: a forward pass for "
        "log-probabilities. The models are Llamas with random weights over 420 tokens, and all responses of a row have "
        "the same length.",
        "## What it costs to train a token (kappa)",
        "kappa is the cost of training one token, a forward and backward pass, divided by the cost of generating one: "
        "decoded tokens a second over trained tokens a second.",
        _rows(tables["kappa"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _answer(lines: Sequence[Line]) -> str:
    """Sampling beside ``generate``, an iteration beside TRL's, and how many targets are met."""
    sentences = []
    if sampled := [line for line in lines if line.name.endswith("transformers.generate")]:
        found = [f"{short(line.ratio)} ({line.name.split(', ', 2)[2].partition(':')[0]})" for line in sampled]
        sentences.append(
            "Sampling makes more tokens a second than transformers' `generate` on the same weights, by these factors: "
            + ", ".join(found)
            + "."
        )
    trl = {line.unit: line for line in lines if "TRL" in line.name}
    if trl.keys() >= {"s", "MiB"}:
        time, memory = trl["s"], trl["MiB"]
        sentences.append(
            f"An iteration of GRPO takes {short(time.ours)} s and {short(memory.ours)} MiB, where TRL takes "
            f"{short(time.peer)} s and {short(memory.peer)} MiB."
        )
    missed, asked = (sum(map(test, lines)) for test in (lambda x: x.ratio < x.target, lambda x: x.target > 0))
    sentences.append(
        f"{asked - missed} of {asked} targets are met"
        + ("; the section on targets says why the others are missed." if missed else ".")
    )
    return " ".join(sentences)


def _comparisons(lines: Sequence[Line]) -> str:
    body = [[*_named(x), short(x.ours), short(x.peer), x.unit, short(x.ratio), _verdict(x)] for x in lines]
    return _table(["measured", "compared with", "ours", "peer", "unit", "ratio", "target"], body) if body else ""


def _named(line: Line) -> tuple[str, str]:
    what, _, peer = line.name.partition(": ")
    return what, peer


def _missed(lines: Sequence[Line], tables: dict[str, list[Row]]) -> list[str]:
    """Why a target is missed, from what was measured beside it."""
    missed = [f"- {line.name}. {_why(line, tables)}".rstrip() for line in lines if line.ratio < line.target]
    return ["## Targets that are missed, and why", "\n".join(missed)] if missed else []


def _why(line: Line, tables: dict[str, list[Row]]) -> str:
    decoding = {row["kind"]: row["seconds"] for row in tables["operators"] if row["work"] == "decoding"}
    update = {row["phase"]: row["seconds"] for row in tables["phases"] if row["algorithm"] == "GRPO"}
    if "generate" in line.name:
        shared = decoding["matrix products"] + decoding["attention"] + decoding["other operators"]
        total = sum(decoding.values())
        return (
            f"{_percent(shared / total)} of the time goes into operators that `generate` runs as well, row for row. "
            f"Copies take {_percent(decoding['copies'] / total)}, and the time between operators is "
            f"{_percent(decoding['between operators'] / total)}."
        )
    if "roofline" in line.name and (own := _steps(tables, COMPILED if COMPILED in line.name else AS_THEY_ARE)):
        times = {row["kind"]: float(row["ms_a_step"]) for row in own}
        launched = sum(float(row["kernels_a_step"]) for row in own)
        return (
            f"A step launches {launched:,.0f} kernels. Most are so small that their number counts, not the bytes that "
            f"they move; together they take {short(sum(times.values()) - times['waiting'])} ms. The GPU waits for "
            f"{short(times['waiting'])} ms a step, because prompts are read and because, of every 32 steps, one is "
            "launched from Python and one is captured. Measured on 48 tokens a response."
        )
    if "continuations" in line.name:
        return (
            "A token of a continuation attends to its whole prefix, a sampled token to half a response on average. "
            "Each continuation also copies the saved attention states (the cache) of its prefix."
        )
    if "TRL" in line.name and line.unit == "s":
        floor = update["forward"] + update["backward"]
        return (
            f"The forward and backward pass, which TRL makes as well, takes {short(floor)} s here. With nothing else "
            f"the ratio would be {short(line.peer / floor)}. The rest is decoding."
        )
    if "groups of 8" in line.name:
        each = next(row for row in tables["trees"] if row["model"] == line.name.partition(": ")[0].split(", ")[-1])
        rest = (line.peer - each["logits_s"]) * each["tree_tokens"] / each["row_tokens"]
        return (
            f"Rows read whole have {each['row_tokens']:,} tokens with their padding, trees {each['tree_tokens']:,}. "
            f"Logits, {short(each['logits_s'])} s, are the same for both. If all else took time by tokens, the ratio "
            f"would be {short(line.peer / (each['logits_s'] + rest))}. Attention to a path takes gathering besides."
        )
    if "an iteration of" in line.name and "TRePO" in line.name:
        return (
            "Two continuations from each of three cuts are sampled besides each response, and sampling takes most of "
            "an iteration."
        )
    if "gradient noise" in line.name:
        return (
            "Measuring takes one more forward and backward pass over all responses, as long as the update's, and "
            "products for each group beside those for all."
        )
    if "estimated memory" in line.name:
        return (
            "glibc keeps more than the estimate's rough constants say, and runs of the same settings differ by up to a "
            "tenth."
        )
    if "a study of" in line.name:
        return "Both times contain the start, imports and the database, once per study."
    return ""


def _steps(tables: dict[str, list[Row]], steps: str) -> list[Row]:
    """The GPU's kernels in steps of this kind, if they were counted."""
    return [row for row in tables.get("gpu_kernels", ()) if row["steps"] == steps]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _pivot(rows: Sequence[Row], line: str, column: str, columns: Sequence[str]) -> str:
    names = dict.fromkeys(row[line] for row in rows)
    values = {(row[line], row[column]): row["seconds"] for row in rows}
    sums = {name: sum(values[name, each] for each in columns) for name in names}
    body = [[name, *(short(values[name, each]) for each in columns), short(sums[name])] for name in names]
    return _table(["", *columns, "sum"], body)


def _rows(rows: Sequence[Row]) -> str:
    return _table(list(rows[0]), [[short(value) for value in row.values()] for row in rows])


def _table(head: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _verdict(line: Line) -> str:
    if not line.target:
        return "none"
    return f"{line.target:.3g}" + ("" if line.ratio >= line.target else ", missed")


def short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
