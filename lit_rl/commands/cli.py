"""The command line: ``python -m lit_rl fit|validate|test ...`` is LightningCLI over the algorithms."""

import atexit
import errno
import logging
import os
import sys
import traceback
import warnings
from functools import cached_property
from typing import Any, NoReturn

import datasets
import transformers
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, StochasticWeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import distributed
from torch.distributed import distributed_c10d

from lit_rl import algorithms
from lit_rl.callbacks import Interruption, IterationProgress, Memory, slurm
from lit_rl.callbacks.interruption import Interrupted, ended_by_signals
from lit_rl.commands import resume
from lit_rl.commands.early import checked
from lit_rl.commands.ending import ending
from lit_rl.commands.explain import told
from lit_rl.commands.export import export
from lit_rl.commands.fit_reward import fit_reward
from lit_rl.commands.parser import Parser, bare_tokens
from lit_rl.commands.settings import CALLBACKS, check_settings
from lit_rl.commands.verify import verify
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.data.trainer_flags import check_strategy, told_of_trainer
from lit_rl.errors import UsageError, usage_error

RUN_LOGGER = "lit_rl.tracking.run_logger.RunLogger"
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class LogConfig(SaveConfigCallback):
    """Saves the run's configuration to MLflow as ``config.yaml``: ``fit --config config.yaml`` repeats the run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})

    @cached_property
    def _text(self) -> str:
        return str(self.parser.dump(self.config, skip_none=False))

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        text = self._text
        for logger in trainer.loggers:
            if isinstance(logger, MLFlowLogger) and not logger.experiment.get_run(logger.run_id).data.params:
                logger.experiment.log_text(logger.run_id, text, "config.yaml")
                logger.log_hyperparams(yaml.safe_load(text))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[resume.CONFIG] = self._text
        if isinstance(trainer.logger, MLFlowLogger):
            checkpoint[resume.RUN_ID] = trainer.logger.run_id

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Logs what has changed, beside the params, which MLflow can't change."""
        changed = resume.changes(checkpoint, self._text)
        if not changed or trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        first = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"] + 1
        said = "; ".join(f"{key} {old} -> {new}" for key, (old, new) in changed.items())
        for logger in trainer.loggers:
            if isinstance(logger, MLFlowLogger):
                logger.experiment.log_text(logger.run_id, self._text, f"config-from-iteration-{first}.yaml")
                logger.experiment.set_tag(logger.run_id, f"lit_rl.changed_from_iteration_{first}", said[:5000])


class CLI(LightningCLI):
    """LightningCLI with this project's classes, forced callbacks and defaults.

    ``CLI(args=config, run=False)`` builds trainer, model and data module from a configuration without running them.
    """

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        super().__init__(
            algorithms.Algorithm,
            RolloutDataModule,
            subclass_mode_model=True,
            args=args,
            run=run,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={
                "prog": "python -m lit_rl",
                "epilog": "And: python -m lit_rl estimate, what fit takes; verify, a certificate; fit-reward; export.",
            },
            save_config_callback=LogConfig,
            trainer_defaults={**TRAINER_DEFAULTS, "logger": {"class_path": RUN_LOGGER}},
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {name: skip for name, skip in LightningCLI.subcommands().items() if name != "predict"}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, name)
        checkpoint = {"save_on_train_epoch_end": True, "every_n_epochs": 10, "save_last": True}
        checkpoint["enable_version_counter"] = False  # a folder's last.ckpt is that of the last run
        parser.set_defaults({f"checkpoint.{key}": value for key, value in checkpoint.items()})

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        self._options = sys.argv[2:] if args is None else list(args)[1:]
        config = self._settings
        check_settings(config.as_dict(), fitting=self.config.get("subcommand") in ("fit", None))
        if self.config.get("subcommand") == "fit" and not config.ckpt_path:
            config.ckpt_path = slurm.checkpoint_to_go_on_from()
        self._resumed = resume.read(config.ckpt_path) if config.get("ckpt_path") else None
        run_id = resume.run_of(self._resumed) if self._resumed else None
        logger = config.trainer.logger
        if run_id and self.config.get("subcommand") == "fit" and getattr(logger, "class_path", "") == RUN_LOGGER:
            logger.init_args.run_id = logger.init_args.run_id or run_id  # a resumed run goes on in its MLflow run

    @property
    def _settings(self) -> Any:
        subcommand = self.config.get("subcommand")
        return self.config[subcommand] if subcommand else self.config

    def before_instantiate_classes(self) -> None:
        config = self._settings
        check_strategy(config.trainer.strategy)
        bare_tokens(config.data.task, config.model.init_args)
        if config.checkpoint.save_on_train_epoch_end is not True:
            raise UsageError(
                "checkpoint.save_on_train_epoch_end must be true: only the end of an iteration can be resumed exactly"
            )
        if self._resumed and self.subcommand == "fit":
            resume.check_changes(self._resumed, self._parser("fit").dump(config, skip_none=False))
        self._resumed = None  # its tensors are those of a file

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(told(error, self._settings.as_dict())) from error

    def before_fit(self) -> None:
        self.model.check_optimization(self.trainer)

    def after_fit(self) -> None:
        if self.trainer.is_global_zero:
            print("\n".join(ending(self.trainer, self._options)))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        given = self._get(self.config_init, "trainer").get("callbacks") or []
        own = given if isinstance(given, list) else [given]
        if any(isinstance(callback, StochasticWeightAveraging) for callback in own):
            raise UsageError(
                "trainer.callbacks: StochasticWeightAveraging takes its average after the last iteration is saved, so "
                "that no checkpoint has it; take WeightAveraging or EMAWeightAveraging"
            )
        callbacks = [*own, Memory()]
        if self.subcommand:  # of this command, not of a worker that has others' signals to follow
            callbacks.append(Interruption())
        if self._settings.trainer.enable_progress_bar is not False and not any(isinstance(c, ProgressBar) for c in own):
            callbacks.append(IterationProgress())
        try:
            return super().instantiate_trainer(**{**kwargs, "callbacks": callbacks})
        except Exception as error:
            settings = self._settings.trainer.as_dict()
            raise UsageError(told_of_trainer(error, settings, TRAINER_DEFAULTS)) from error


def quiet() -> None:
    """Silences messages of libraries that a user can do nothing about."""
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*gradient_checkpointing_enable.*")  # its new name is too new
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda r: "litlogger" not in r.getMessage())


def main() -> int:
    """Runs the command line; returns the exit code."""
    with ended_by_signals():
        try:
            code = command()
        except Interrupted as end:
            if end.requeue and end.code:  # in the first process
                slurm.requeue()
            raise
    if code and distributed.is_initialized():
        leave(code)
    return code


def leave(code: int) -> NoReturn:
    """Ends a process whose collectives may have been broken off.

    Their threads may still hold tensors, and Python's own end aborts the process where one of them drops its tensors
    then: the exit code would be SIGABRT's. Over gloo the first process meets an error as soon as another is gone, and
    gives the run's exit code. The others end with 0, for a launcher kills the first one when another ends with an
    error.
    """
    if distributed.get_rank() and distributed.get_backend() == "gloo":
        code = 0
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def command() -> int:
    """Does what the command line says; returns the exit code."""
    quiet()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        if sys.argv[1:2] == ["verify"]:  # no Trainer
            return verify(sys.argv[2:])
        if sys.argv[1:2] == ["fit-reward"]:  # a Trainer of its own
            return fit_reward(sys.argv[2:])
        if sys.argv[1:2] == ["export"]:
            return export(sys.argv[2:])
        if sys.argv[1:2] == ["estimate"]:
            from lit_rl.commands.estimate import estimate  # which takes the parser of this file

            return estimate(sys.argv[2:])
        sys.argv[1:] = checked(sys.argv[1:])
        CLI()
    except MisconfigurationException as error:  # Lightning's own, of Trainer flags
        return fail(f"trainer: {' '.join(str(error).split())}")
    except Exception as error:
        usage = usage_error(error)
        if usage is not None:
            return fail(str(usage))
        if isinstance(error, OSError) and error.errno in NOT_WRITTEN:
            return fail(
                f"{error.filename or 'a file'} cannot be written ({error.strerror}); make room, or go elsewhere"
            )
        if mistakes(0):
            return 2  # this process has only lost another one, which has said why
        raise
    return 0


def fail(message: str) -> int:
    """Prints the user's mistake, in the process that is the first to find one; returns the exit code."""
    if mistakes(1) == 1:
        if os.environ.get("LIT_RL_DEBUG") == "1":
            traceback.print_exc()
        print(f"lit_rl: {message}", file=sys.stderr)
    return 2


def mistakes(found: int) -> int:
    """How many processes of this run have found a mistake of the user's, with the ``found`` of this one.

    Counted where the processes meet; without others, or once the one that counts is gone, those of this one, or all.
    """
    if not distributed.is_initialized():
        return found
    try:
        return distributed_c10d._get_default_store().add("lit_rl/mistakes", found)
    except RuntimeError:
        return distributed.get_world_size()
