"""``python -m ablations list|run|compare|report|ui``."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from ablations.metric_units import DEFAULT_MATTERS, MEBIBYTES, POINTS
from ablations.records import trials
from ablations.records.study_results import FOLDER
from ablations.studies import CERTIFICATE, STUDIES, find
from ablations.studies.from_files import DEFAULT, METRICS, check_same_problems, compared
from ablations.studies.own import listed
from ablations.study import SCALES, Study
from ablations.sweep.arm_check import complete
from ablations.sweep.exact import compute
from ablations.sweep.launchers import Launcher
from ablations.sweep.stopping import Stopped, stoppable
from ablations.sweep.tuning import tuned
from lit_rl.errors import UsageError
from lit_rl.ranges import Count, Port, Positive, Seed, Share, fault


class Parser(argparse.ArgumentParser):
    """Turns mistakes into one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` shows what there is")


def _parser() -> Parser:
    parser = Parser(prog="python -m ablations", description="Studies: run them, report them.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the studies and their questions")
    run = commands.add_parser("run", help="run the cells that are not finished yet, then report")
    compare = commands.add_parser("compare", help="run configurations of lit_rl fit against each other, then report")
    report = commands.add_parser("report", help="write results/STUDY from what MLflow has")
    for command in (run, report):
        command.add_argument("study", help="a name that `list` shows, or the import path of one of your own")
        command.add_argument("--scale", choices=SCALES, help="default: the smallest that the study has")
    compare.add_argument(
        "files", nargs="+", help="YAML files, the first one the baseline (fit --print_config makes one)"
    )
    compare.add_argument("--name", help="of results and runs (default: of the files' names)")
    compare.add_argument("--metric", choices=METRICS, default=DEFAULT, help="that decides (default: %(default)s)")
    compare.add_argument(
        "--matters",
        type=float,
        help=f"the smallest difference that would matter, in {POINTS} (default: {DEFAULT_MATTERS[POINTS]:g}) or, of "
        f"memory, in {MEBIBYTES} (default: {DEFAULT_MATTERS[MEBIBYTES]:g})",
    )
    for command, seeds in ((run, "the study's"), (compare, "5")):
        command.add_argument(
            "--jobs", type=_number(Count), help="cells at a time (default: number of cores, or what Ray has room for)"
        )
        command.add_argument(
            "--seeds", type=_number(Seed), nargs="+", help=f"a count, or two or more seeds (default: {seeds})"
        )
        command.add_argument("--launcher", choices=("local", "ray"), default="local", help="where cells run")
        ray = command.add_argument_group("with --launcher ray")
        ray.add_argument("--address", help="of the cluster (default: auto, the one that this machine is in)")
        ray.add_argument(
            "--cpus-per-cell", type=_number(Positive), help="of a node (default: 1, or what the study says)"
        )
        ray.add_argument("--gpus-per-cell", type=_number(Share), help="at most 1 (default: 0, or what the study says)")
    for command in (run, compare, report):
        command.add_argument("--smoke", action="store_true", help="tiny sizes, one seed, to try the study out")
    ui = commands.add_parser("ui", help="look at the runs in MLflow")
    ui.add_argument("--port", type=_number(Port), default=5000)
    return parser


def _number(hint: Any) -> Callable[[str], Any]:
    """Reads a number in the range of a type of :mod:`lit_rl.ranges`."""

    def read(text: str) -> Any:
        number: Any = text
        with suppress(ValueError):
            number = int(text) if text.removeprefix("-").isdecimal() else float(text)
        if reason := fault(number, hint):
            raise argparse.ArgumentTypeError(f"{text}: it {reason}")
        return number

    return read


def _seeds(given: list[int] | None) -> list[int] | None:
    if given is not None and len(set(given)) < len(given):
        raise UsageError(f"--seeds {' '.join(map(str, given))}: seeds are different numbers")
    if given is None or len(given) > 1:
        return given
    if given[0] < 1:
        raise UsageError(f"--seeds {given[0]}: a single number is a count of seeds, at least 1")
    return list(range(given[0]))


def _ui(port: int) -> None:
    from ablations.report.mlflow_view import address, publish
    from lit_rl.tracking.address import Client, tracking_uri

    uri = tracking_uri()
    remote = uri.startswith(("http://", "https://"))
    known = {
        each.label(smoke): (each, smoke)
        for study in STUDIES.values()
        for each in (study, trials.trials(study))
        if each is not None
        for smoke in (False, True)
    }
    client = Client(uri)
    for experiment in client.search_experiments(filter_string="name != 'Default'"):
        if experiment.name in known:
            study, smoke = known[experiment.name]
            with suppress(UsageError):  # its trials are not finished, so that it has no runs
                publish(tuned(study, smoke), smoke)
                experiment = client.get_experiment(experiment.experiment_id)
        print(f"{experiment.name}: {address(uri if remote else f'http://127.0.0.1:{port}', experiment)}", flush=True)
    if not remote:
        command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port)]
        os.execv(sys.executable, command)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    try:
        with stoppable():
            return _main(args)
    except UsageError as error:
        if os.environ.get("LIT_RL_DEBUG") == "1":
            traceback.print_exc()
        print(f"ablations: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        print(f"ablations: {stop.how}; the same command goes on from here", file=sys.stderr)
        return stop.code


def _main(args: Sequence[str] | None) -> int:
    options = _parser().parse_args(args)
    if options.command == "list":
        for study in STUDIES.values():
            print(f"{study.name}{'' if study.scale == 'tiny' else f' --scale {study.scale}'}: {study.question}")
        print(f"{CERTIFICATE}: Is every estimator what it is said to be? Enumerated, without training.")
        for path, question in listed(Path()):
            print(f"{path}: {question}")
        return 0
    if options.command == "ui":
        _ui(options.port)
        return 0
    if options.command == "compare":
        taken = {*STUDIES, CERTIFICATE}
        return _run(compared(options.files, options.name, options.metric, taken, options.matters), options)
    if options.study == CERTIFICATE:
        from lit_rl.commands.verify import verify

        return verify(["--report", str(FOLDER / CERTIFICATE)])
    return _run(find(options.study, options.scale), options)


def _run(study: Study, options: argparse.Namespace) -> int:
    """Runs a study unless it is only to be reported, and reports it."""
    code = 0
    if options.command != "report":
        from ablations.sweep.runner import run

        seeds = _seeds(options.seeds)
        if study.tuning is not None and (both := set(seeds or ()) & set(study.tuning.seeds)):
            raise UsageError(f"--seeds: {min(both)} is a seed of the trials of {study.name}; take others")
        if study.command:  # of the user's
            settings = complete(study, options.smoke)
            if options.command == "compare":
                check_same_problems(study, settings)
        with _launcher(options, study) as launcher:
            compute(study, options.smoke)
            if (tried := trials.trials(study)) is not None and not options.smoke:
                done = {trial.config_hash for trial in trials.recorded(study)}
                code = run(tried, None, launcher, False, done, curves=False)
            if not code:
                code = run(tuned(study, options.smoke), seeds, launcher, options.smoke)
    from ablations.report.study_report import report

    try:
        report(_reported(study, options.smoke), options.smoke)
    except UsageError:
        if not code:  # otherwise the sweep has already said why there is nothing to report
            raise
    return code


@contextmanager
def _launcher(options: argparse.Namespace, study: Study) -> Iterator[Launcher]:
    """What starts the workers of a sweep."""
    if options.launcher == "ray":
        from ablations.sweep.ray_nodes import connected

        cpus, gpus = (1.0, 0.0) if options.smoke else (study.cpus_per_cell, study.gpus_per_cell)
        cpus = cpus if options.cpus_per_cell is None else options.cpus_per_cell
        gpus = gpus if options.gpus_per_cell is None else options.gpus_per_cell
        with connected(options.address or "auto", cpus, gpus, options.jobs) as nodes:
            yield nodes
        return
    from ablations.sweep.workers import Processes

    for name in ("address", "cpus_per_cell", "gpus_per_cell"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is a setting of --launcher ray; add that, or leave it out")
    yield Processes(options.jobs or os.cpu_count() or 1)


def _reported(study: Study, smoke: bool) -> Study:
    """The study with what its trials chose; as it is where these are not finished, if it has exact rows to show."""
    try:
        return tuned(study, smoke)
    except UsageError:
        if not study.exact:
            raise
        return study


if __name__ == "__main__":
    sys.exit(main())
