"""The README points at what is there, and names what the code exports."""

import json
import re
from pathlib import Path

import yaml

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


def test_commands_for_gpus_parse_and_take_steps_of_as_many_responses(lit_rl):
    """Nothing is loaded."""
    shared = re.search(r'RUN="(.+?)"', TEXT, re.DOTALL)[1].split()
    commands = re.findall(r"python -m lit_rl fit \$RUN (.+)", TEXT)
    assert len(commands) == 4
    for command in commands:
        code, out, err = lit_rl("fit", *shared, *command.split(), "--print_config")
        assert code == 0, err
        config = yaml.safe_load(out)
        data, trainer, devices = config["data"], config["trainer"], config["trainer"]["devices"]
        step = data["rows_per_microbatch"] * trainer["accumulate_grad_batches"]
        responses = data["prompts_per_iteration"] * config["model"]["init_args"]["samples"]
        processes = 1 if devices == "auto" else int(devices)
        assert step * processes == 256 and responses // processes % step == 0
