"""``results/README.md``: a row a question, from what the reports have written beside themselves."""

import json
from pathlib import Path
from typing import Any

from ablations import comparisons, metrics
from ablations.results import FOLDER, Results

SUMMARY = "summary.json"
TITLE = """# Questions and answers

One row a planned comparison, from the reports beside this page; `python -m ablations report STUDY` writes both anew.
Differences are means over seeds with 95% t intervals, in points; Holm's p adjusts the exact sign-flip test for the
comparisons of a study. Below 8 seeds a study is a pilot, and nothing is claimed.

Whether the estimators are what they are said to be is enumerated: [certificate](certificate/report.md), by
`python -m ablations run certificate`.
"""


def summarize(results: Results, folder: Path, command: str) -> None:
    """Writes ``summary.json``."""
    found = comparisons.verdicts(results, results.study.comparisons)
    rows = [
        {
            "comparison": str(each.comparison),
            "difference": metrics.difference(each.interval, each.metric),
            "p": comparisons.number(each.adjusted),
            "predicted": each.comparison.predicted,
            "found": each.found if len(each.differences) >= comparisons.ENOUGH_SEEDS else "pilot",
            "seeds": len(each.differences),
        }
        for each in found
    ]
    summary = {
        "study": results.study.name,
        "question": results.study.question,
        "scale": results.study.scale,
        "command": command,
        "comparisons": rows,
    }
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write() -> Path:
    """Writes the page."""
    path = FOLDER / "README.md"
    parts = [TITLE]
    for file in sorted(FOLDER.glob(f"*/{SUMMARY}")):
        if not file.parent.name.endswith("-smoke"):
            parts.append(_section(file.parent.name, json.loads(file.read_text(encoding="utf-8"))))
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _section(folder: str, summary: dict[str, Any]) -> str:
    columns = ("comparison", "difference", "Holm p", "predicted", "found", "seeds")
    rows = [
        [row["comparison"], row["difference"], row["p"], row["predicted"], row["found"], str(row["seeds"])]
        for row in summary["comparisons"]
    ]
    where = f"Scale {summary['scale']}, [report]({folder}/report.md), `{summary['command']}`"
    return f"## {summary['question']}\n\n{where}\n\n{comparisons.markdown(columns, rows)}\n"
