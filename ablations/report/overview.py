"""``results/README.md``: a row a question, from what the reports have written beside themselves."""

import json
from pathlib import Path
from typing import Any

from ablations.analysis import comparisons, metric_text
from ablations.analysis.tables import markdown
from ablations.analysis.verdicts import ENOUGH_SEEDS, verdicts
from ablations.records.study_results import FOLDER, StudyResults
from ablations.studies import STUDIES

SUMMARY, PILOT = "summary.json", "pilot"
TITLE = """# Questions and answers

Each study asks one question. Below it stand the answer, the planned comparisons, and a link to the report with figures,
tables and limits. `python -m ablations report STUDY` writes a report and this page anew.

- **Difference**: the first minus the second, a mean over paired seeds with its 95% t interval. Accuracy is in points:
  at the end of the budget, or averaged over it, which is how fast an arm learns and where it ends, together; each
  report says which. Factors (x) are of gradient noise, tr Σ, at equal cost: below 1 is better.
- **8 x 4** are the prompts of an update, and the responses to each.
- **Matters**: the smallest difference that would matter. **Holm p**: p of an exact sign-flip test, adjusted for the
  comparisons of the study. **Found**: `equal` where the difference is shown to be smaller than what matters, by two
  one-sided t tests, each at .05 and not adjusted; otherwise `above` or `below` where Holm p is less than .05;
  `unresolved` where neither was shown. A `pilot` has fewer than 8 seeds: nothing is claimed, and it stands last.
- **TRePO** estimates the value of a prefix from K **continuations**, responses sampled on from a **cut** in the
  response. With stride 4 there is a cut every 4 tokens. The value of the prompt itself (the root) is the mean reward
  of the other responses to it, its siblings, or of continuations that cost tokens (a paid root). A fill rule turns
  values at cuts into token advantages: by default a segment's change of value; with `linear_advantage`, the paper's
  words, a line between the advantages at the cuts. With **reuse** the continuations are trained on as well.
- **Kappa** is the cost of training a token over that of generating one.
"""
CERTIFICATE = """\
Whether the estimators are what they are said to be is enumerated: [certificate](certificate/report.md), by
`python -m ablations run certificate`.
"""


def summarize(results: StudyResults, folder: Path, command: str, answer: str) -> None:
    """Writes ``summary.json``."""
    found = verdicts(results, results.study.comparisons)
    rows = [
        {
            "comparison": str(each.comparison),
            "difference": metric_text.difference(each.interval, each.metric),
            "matters": metric_text.matters(each.matters, each.metric),
            "p": comparisons.number(each.adjusted),
            "predicted": each.comparison.predicted,
            "found": each.found if len(each.differences) >= ENOUGH_SEEDS else PILOT,
            "seeds": len(each.differences),
        }
        for each in found
    ]
    summary = {
        "study": results.study.name,
        "question": results.study.question,
        "scale": results.study.scale,
        "command": command,
        "answer": answer,
        "comparisons": rows,
    }
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write() -> Path:
    """Writes the page: the package's studies in their order, and behind them those of one's own."""
    path, order = FOLDER / "README.md", list(STUDIES)
    read = {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in FOLDER.glob(f"*/{SUMMARY}")}
    found = {name: summary for name, summary in read.items() if "comparisons" in summary}  # the others are not ours

    def place(name: str) -> tuple[bool, int, str]:
        pilot = any(row["found"] == PILOT for row in found[name]["comparisons"])
        return pilot, order.index(name) if name in order else len(order), name

    certified = [CERTIFICATE] if (FOLDER / "certificate" / "report.md").is_file() else []
    parts = [_section(name, found[name]) for name in sorted(found, key=place)]
    path.write_text("\n".join([TITLE, *certified, *parts]), encoding="utf-8")
    return path


def _section(folder: str, summary: dict[str, Any]) -> str:
    keys = ("comparison", "difference", "matters", "p", "predicted", "found", "seeds")
    rows = [[str(row.get(key, "")) for key in keys] for row in summary["comparisons"]]
    where = f"Scale {summary['scale']}. [Report]({folder}/report.md). `{summary['command']}`"
    table = f"{markdown(comparisons.COLUMNS, rows)}\n\n" if rows else ""
    return f"## {summary['question']}\n\n{summary.get('answer', '')}\n\n{table}{where}\n"
