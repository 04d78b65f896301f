"""The page of promises has those that torture tries, and no other."""

import importlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORTURE = ROOT / "tests" / "torture"


def test_the_page_has_the_promises_that_are_tried(monkeypatch):
    monkeypatch.syspath_prepend(str(TORTURE))
    topics = [path.stem for path in TORTURE.glob("*.py") if path.stem not in ("__main__", "trials")]
    tried = {trial.promise for topic in topics for trial in importlib.import_module(topic).TRIALS}
    page = (ROOT / "docs" / "reliability.md").read_text()
    table = page.partition("## Promises")[2].partition("\n## ")[0]
    assert {row.strip() for row in re.findall(r"^\| (.+?) \| \d+ \| \d+ \| \d+ \|$", table, re.MULTILINE)} == tried
