"""The README points at what is there, and names what the code exports."""

import json
import re
from pathlib import Path

from lit_rl import algorithms, tasks

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_links_lead_to_files():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links)
    assert all((ROOT / path).exists() for path in re.findall(r"`((?:lit_rl|ablations|data)/[\w/.]+)`", TEXT))


def test_every_algorithm_is_in_the_table():
    named = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))
    assert named == set(algorithms.__all__) - {"Algorithm"}
    assert all(
        name in algorithms.__all__ or name in tasks.__all__
        for name in re.findall(r"--(?:model|data.task) ([A-Z]\w+)", TEXT)
    )


def test_what_the_table_calls_unbiased_the_certificate_does():
    rows = json.loads((ROOT / "results/certificate/certificate.json").read_text())
    table = dict(re.findall(r"^\| `(\w+)` \|[^|]+\| (yes|no)", TEXT, re.MULTILINE))
    assert table.pop("Supervised") == "no" and set(table) == set(algorithms.__all__) - {"Algorithm", "Supervised"}
    for name, unbiased in table.items():
        found = [row for row in rows if re.match(rf"{name}\b", row["estimator"])]
        assert (found[0]["expected"] == "unbiased") == (unbiased == "yes"), name  # the default comes first
