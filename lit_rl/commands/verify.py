"""``python -m lit_rl verify``: the certificate of every estimator, or of one's own."""

import copy
import math
import sys
from pathlib import Path
from typing import Any, TextIO

import torch
from transformers.utils.logging import disable_progress_bar

from lit_rl.algorithms import Algorithm
from lit_rl.commands.options import in_order
from lit_rl.commands.parser import Parser, built
from lit_rl.errors import UsageError
from lit_rl.exact.certificate import Build, Certificate, Claim, certify, describe, random_policy
from lit_rl.exact.claims import claims
from lit_rl.exact.dialogue import spoken_at
from lit_rl.exact.expectation import SAMPLES, cut_chances, enumerable
from lit_rl.exact.report import FAILED_OWN, HEADER, NOT_FINITE, as_json, line, theorem_line, write_report
from lit_rl.exact.small_tasks import PAIRS, SUM_EOS
from lit_rl.exact.theorem import prove
from lit_rl.exact.tree import grow
from lit_rl.exact.turn_claims import TWO_TURNS
from lit_rl.tasks import PositionTask

DESCRIPTION = (
    "Compares the expected gradient of each estimator with the exact one. The expectation is enumerated on small tasks "
    "with the code that trains. Also proves the policy gradient theorem on small trees. Takes a minute. Exit code 0: "
    "everything holds; 1: an expectation differs from its formula; 2: a setting is wrong."
)
OWN = PAIRS, SUM_EOS, TWO_TURNS  # a fixed length, lengths that vary, and an environment between two turns
NO_CUT, TOO_MANY = "where model.cuts makes no cut", "which has too many outcomes to enumerate"
FEWER = "set --model.samples 2, and fewer continuations if that is not enough"


def verify(args: list[str]) -> int:
    """Runs the subcommand; returns the exit code."""
    parser = Parser(prog="python -m lit_rl verify", description=DESCRIPTION)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a list of JSON objects, one per estimator; the table then goes to stderr",
    )
    parser.add_argument("--report", metavar="FOLDER", help="also write report.md and certificate.json into this folder")
    parser.add_subclass_arguments(
        Algorithm,
        "model",
        required=False,
        help="your own estimator, verified alone (exit code 1 unless it is unbiased on each task that judges it)",
    )
    config = parser.parse_args(in_order(args, {}))
    own = config.model is not None
    if own and config.report:
        raise UsageError(
            "--report is about the estimators that come with lit_rl; leave it out with --model (--json has the numbers)"
        )
    if own and config.model.class_path.endswith(".Algorithm"):
        raise UsageError(
            "model: Algorithm is the base class; name your estimator, as in --model my_package.MyEstimator"
        )
    if own and config.model.get("init_args", {}).get("policy") is not None:
        raise UsageError(
            "model.policy: verify uses its own policy, whose exact gradient is known; leave the setting out"
        )
    if config.report:
        try:
            Path(config.report).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--report: cannot make the folder {config.report} ({error.strerror})") from None
    torch.set_num_threads(1)  # small matrices
    disable_progress_bar()  # of the models that come and go
    table = sys.stderr if config.json else sys.stdout
    found: list[Certificate] = []
    name = config.model.class_path.rpartition(".")[2] if own else ""
    for claim in _own_claims(_builder(parser, config), name, table) if own else claims():
        found.append(certify(claim))
        if len(found) == 1:
            print(HEADER, file=table)
        print(line(found[-1]), file=table, flush=True)
    statements = [] if own else prove()
    for statement in statements:
        print(theorem_line(statement), file=table)
    if config.json:
        print(as_json(found))
    if config.report:
        write_report(Path(config.report), found, statements, SAMPLES)
    outcomes = [each.holds for each in found] + [each.holds for each in statements]
    if own and not all(outcomes):
        finite = all(math.isfinite(each.relative_bias) for each in found)
        print(FAILED_OWN if finite else NOT_FINITE, file=table)
    print(f"{len(outcomes)} checks: {sum(outcomes)} hold, {len(outcomes) - sum(outcomes)} fail", file=table)
    return 0 if all(outcomes) else 1


def _own_claims(build: Build, name: str, table: TextIO) -> list[Claim]:
    """One for each task on which the estimator can be judged. Says which are left out.

    Raises:
        UsageError: all are.
    """
    reasons = {task: _left_out(build, task) for task in OWN}
    said = [f"{describe(task)}, {why}" for task, why in reasons.items() if why]
    if len(said) == len(OWN):  # without cuts all would be judged
        mend = FEWER if TOO_MANY in reasons.values() else "set --model.cuts Stride --model.cuts.every 2"
        raise UsageError(f"model.cuts: no task judges this estimator ({'; '.join(said)}); {mend}")
    for task, why in reasons.items():
        if why:
            print(f"left out: {describe(task)}, {why}" + (f"; {FEWER}" if why == TOO_MANY else ""), file=table)
    return [Claim(name, build, task) for task, why in reasons.items() if not why]


def _left_out(build: Build, task: PositionTask) -> str:
    """Why an estimator can't be judged on a task; empty if it can."""
    policy = random_policy(task)
    algorithm = build(policy=policy, max_new_tokens=task.length)
    plan, tree = algorithm.plan, grow(policy, task, algorithm.plan.temperature)
    if plan.continuations and not cut_chances(plan, tree).any():
        return NO_CUT
    if spoken_at(task) and not enumerable(algorithm, tree):
        return TOO_MANY
    return ""


def _builder(parser: Parser, config: Any) -> Build:
    """Builds the configured estimator around a policy."""

    def build(**settings: Any) -> Algorithm:
        chosen = copy.deepcopy(config)
        for name in ("policy", "max_new_tokens"):
            if name not in chosen.model.get("init_args", {}):
                raise UsageError(f"model: {chosen.model.class_path} takes no '{name}'; pass **kwargs on to Algorithm")
            chosen.model.init_args[name] = settings[name]
        algorithm: Algorithm = built(parser, chosen).model
        return algorithm

    return build
