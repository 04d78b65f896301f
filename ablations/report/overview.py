"""``results/README.md``: a row a question, from what the reports have written beside themselves."""

import json
from pathlib import Path
from typing import Any

from ablations.analysis import comparisons, metric_text
from ablations.records.study_results import FOLDER, StudyResults
from ablations.studies import STUDIES

SUMMARY, PILOT = "summary.json", "pilot"
TITLE = """# Questions and answers

One row a planned comparison, from the reports beside this page; `python -m ablations report STUDY` writes both anew.
Differences are means over seeds with 95% t intervals, which are not adjusted; Holm's p adjusts the exact sign-flip test
for the comparisons of a study. Below 8 seeds a study is a pilot, and nothing is claimed; pilots stand last.

- Points of accuracy are those of its **mean over the budget** of generated tokens or seconds: how fast an arm learns
  and where it ends, together. What a difference is at the end alone stands in the report.
- Factors (x) are of gradient noise, tr Σ, at equal cost: below 1 is better.
- TRePO takes the value of a prefix at **cuts** (at a **stride**, every so many tokens, or at random) from K
  **continuations** of it, sampled and scored. The **root**, the prompt's own value, is the mean of the other responses
  to it (siblings), or is paid for with continuations, too. A **fill** makes a token's advantage from the values at the
  cuts around it: the change of the value over its segment by default; with `linear_advantage`, the paper's words, the
  line between the advantages at the cuts. With **reuse** the continuations are trained on as well.
- **Kappa** is what training a token costs, in generated tokens.

Whether the estimators are what they are said to be is enumerated: [certificate](certificate/report.md), by
`python -m ablations run certificate`.
"""


def summarize(results: StudyResults, folder: Path, command: str) -> None:
    """Writes ``summary.json``."""
    found = comparisons.verdicts(results, results.study.comparisons)
    rows = [
        {
            "comparison": str(each.comparison),
            "difference": metric_text.difference(each.interval, each.metric),
            "p": comparisons.number(each.adjusted),
            "predicted": each.comparison.predicted,
            "found": each.found if len(each.differences) >= comparisons.ENOUGH_SEEDS else PILOT,
            "seeds": len(each.differences),
        }
        for each in found
    ]
    summary = {
        "study": results.study.name,
        "question": results.study.question,
        "scale": results.study.scale,
        "command": command,
        "reading": comparisons.reading(results),
        "comparisons": rows,
    }
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write() -> Path:
    """Writes the page."""
    path, order = FOLDER / "README.md", list(STUDIES)
    found = {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in FOLDER.glob(f"*/{SUMMARY}")}

    def place(name: str) -> tuple[bool, int]:
        return any(row["found"] == PILOT for row in found[name]["comparisons"]), order.index(name)

    parts = [_section(name, found[name]) for name in sorted(found.keys() & order, key=place)]
    path.write_text("\n".join([TITLE, *parts]), encoding="utf-8")
    return path


def _section(folder: str, summary: dict[str, Any]) -> str:
    columns = ("comparison", "difference", "Holm p", "predicted", "found", "seeds")
    rows = [
        [row["comparison"], row["difference"], row["p"], row["predicted"], row["found"], str(row["seeds"])]
        for row in summary["comparisons"]
    ]
    where = f"Scale {summary['scale']}, [report]({folder}/report.md), `{summary['command']}`"
    read = f"{summary['reading']}\n\n" if summary.get("reading") else ""
    return f"## {summary['question']}\n\n{where}\n\n{read}{comparisons.markdown(columns, rows)}\n"
