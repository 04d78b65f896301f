"""``python -m lit_rl estimate``: tokens, optimizer steps and memory of a run, before anything of it is loaded."""

import argparse
import warnings
from types import SimpleNamespace
from typing import Any

import psutil
import torch
from torch import nn

from lit_rl.algorithms import RTO, Algorithm, OnlineDPO
from lit_rl.callbacks.memory import sizes
from lit_rl.commands.cli import CLI
from lit_rl.commands.early import checked
from lit_rl.data import RolloutDataModule
from lit_rl.data.trainer_flags import check_sizes
from lit_rl.errors import UsageError
from lit_rl.estimate.engine import engine_of
from lit_rl.estimate.memory import Strategy
from lit_rl.estimate.mends import NOISE, REFERENCE, mended
from lit_rl.estimate.run import Model, Run
from lit_rl.estimate.text import Estimate, text
from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.reading import may_take_tree
from lit_rl.policy.reward_model import RewardModel
from lit_rl.policy.shapes import shapes_alone
from lit_rl.sampling import VLLM, LocalSampler
from lit_rl.tasks.base import Split

DESCRIPTION = (
    "Says what a run will take: parameters, tokens and optimizer steps of an iteration, and memory of each device by "
    "part, for one process, for DDP and for FSDP2. It takes the arguments of fit. Models are built as shapes: no "
    "weight is read, and nothing is written. Responses are taken to be as long as they may be."
)
EPILOG = "Exit code 0: it fits; 1: it does not, and settings are named with which it would; 2: a setting is wrong."
GIB = 2**30
CONTEXT = 0.75 * GIB  # of CUDA: its kernels and the workspaces of its libraries
LIBRARIES = 14 * 2**20  # code of PyTorch that is loaded at the first training step on a CPU


def estimate(args: list[str]) -> int:
    """Runs the subcommand; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lit_rl estimate",
        usage="%(prog)s [--memory GIB] [the arguments of fit]",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--memory", type=_gib, metavar="GIB", help="of each device; by default, what this machine has")
    options, rest = parser.parse_known_args(checked(["estimate", *args])[1:])
    found = estimated(rest, options.memory)
    fits = found.total() <= found.memory
    room = found.memory - found.base
    mends = None if fits else mended(found.run, found.strategy, found.ranks, room, found.optional)
    print("\n".join(text(found, mends)))
    return 0 if fits else 1


def _gib(given: str) -> float:
    try:
        size = float(given)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise UsageError(f"--memory is {given}; give the GiB of a device, above 0")
    return size


def estimated(args: list[str], memory: float | None = None) -> Estimate:
    """What the arguments of ``fit`` come to.

    Args:
        memory: GiB of a device; None takes what this machine has.

    Raises:
        UsageError: a setting is wrong, as ``fit`` would say.
    """
    before = psutil.Process().memory_info().rss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arguments that are not those of the process
        cli = Shapes(args=["fit", *args])
    settings = cli.settings
    algorithm, data, reward = cli.model, cli.datamodule, cli.config_init.fit.reward
    gpu, ranks, strategy = _place(settings.trainer)
    accumulate = settings.trainer.accumulate_grad_batches
    plan, policy = algorithm.plan, algorithm.policy
    prompts = data.prompts_per_iteration
    check_sizes(plan, prompts, data.rows_per_microbatch, data.tokens_per_microbatch, ranks, accumulate)
    evaluates = settings.trainer.limit_val_batches not in (0, 0.0)
    lengths = _lengths(data, "train", policy, plan.max_new_tokens, None)
    asked = _lengths(data, "val", policy, plan.max_new_tokens, data.eval_prompts) if evaluates else []
    if reward.model is not None:
        with shapes_alone():
            reward.reward_model = RewardModel.load(reward.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sizes(SimpleNamespace(callbacks=[reward], optimizers=_stepped(algorithm)), algorithm)
    critic = getattr(algorithm, "critic", None)
    frozen = [*algorithm.frozen, *([reward.reward_model] if reward.reward_model is not None else [])]
    ours = isinstance(data.sampler, LocalSampler)
    measured = settings.gradient_variance.every_n_iterations
    probed = settings.diagnostics.every_n_iterations and settings.diagnostics.probe_every_n_iterations
    together = ranks // settings.trainer.num_nodes  # on a machine
    size = _memory(gpu, together) if memory is None else memory * GIB
    model, autocast = shape(policy), "mixed" in str(settings.trainer.precision)
    engine = None
    if isinstance(data.sampler, VLLM) and (evaluates or not plan.demonstrations):
        chosen = settings.trainer.devices
        device = torch.device("cuda", chosen[0] if isinstance(chosen, list) else 0) if gpu else torch.device("cpu")
        slot, number = 2 * model.layers * model.keys, 2 if autocast else model.element
        engine = engine_of(data.sampler, policy, slot, number, device, size * (1 if gpu else together))
    run = Run(
        model=model,
        plan=plan,
        weights=found["policy"],
        critic=found.get("critic", 0),
        frozen=found["frozen"],
        trained=sum(p.numel() * p.element_size() for p in algorithm.parameters() if p.requires_grad),
        optimizer=found["optimizer"],
        own_trunk=getattr(critic, "trunk", None) is not None,
        autocast=autocast,
        checkpointing=any(getattr(each, "gradient_checkpointing", False) for each in policy.model.modules()),
        gpu=gpu,
        prompts=prompts,
        prompt=sum(lengths) / len(lengths),
        longest=max(lengths + asked),
        rows=data.rows_per_microbatch,
        tokens=data.tokens_per_microbatch,
        accumulate=accumulate,
        passes=algorithm.passes,
        batch_rows=data.sampler.batch_rows if ours else 0,
        evaluated=min(data.eval_rows * ranks, data.eval_prompts or data.eval_rows * ranks) if evaluates else 0,
        noise=bool(measured or probed),
        engine=engine,
    )
    after = psutil.Process().memory_info().rss
    return Estimate(
        run=run,
        name=f"{type(algorithm).__name__} on {type(data.task).__name__}",
        strategy=strategy,
        ranks=ranks,
        base=CONTEXT if gpu else after + LIBRARIES,
        before=0 if gpu else before,
        memory=size,
        iterations=settings.trainer.max_epochs,
        parameters={
            "trained": sum(p.numel() for p in algorithm.parameters() if p.requires_grad),
            "policy": sum(p.numel() for p in policy.parameters()),
            "critic": sum(p.numel() for p in critic.parameters()) if isinstance(critic, nn.Module) else 0,
            "frozen beside": sum(p.numel() for module in frozen for p in module.parameters()),
        },
        optional=_optional(algorithm, bool(measured and not probed)),
        notes=_notes(data, ours or engine is not None),
    )


class Shapes(CLI):
    """Model and data module of ``fit``, the models as shapes. There is no Trainer."""

    @property
    def settings(self) -> Any:
        return self._settings

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        self._settings.trainer.logger = False  # it would open its database
        self._settings.trainer.callbacks = None

    def instantiate_classes(self) -> None:
        with shapes_alone():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        return None

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def shape(policy: CausalPolicy) -> Model:
    """What the memory of a model depends on.

    Raises:
        UsageError: it is no model of layers that attend.
    """
    model: Any = policy.model
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", None)
    if heads is None:
        raise UsageError(f"model.policy: {type(policy).__name__} has no attention, and estimate knows no other models")
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    parameters = list(model.parameters())
    names = set(getattr(model, "_no_split_modules", None) or ())
    blocks = [each for each in model.modules() if type(each).__name__ in names]
    head = model.get_output_embeddings()
    return Model(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        inner=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        queries=heads * size,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * size,
        heads=heads,
        vocabulary=policy.vocabulary,
        element=parameters[0].element_size(),
        linear=sum(each.weight.numel() for each in model.modules() if isinstance(each, nn.Linear)),
        block=max((sum(p.numel() * p.element_size() for p in each.parameters()) for each in blocks), default=0),
        largest=max(p.numel() for p in parameters),
        head=head.weight.numel() if head is not None and head.weight.requires_grad else 0,
        tied=head is not None and head.weight is model.get_input_embeddings().weight,
        trees=may_take_tree(model.config),
    )


def _lengths(data: RolloutDataModule, split: Split, policy: CausalPolicy, most: int, first: int | None) -> list[int]:
    """Tokens of the prompts of a split that are used, as ``fit`` checks them."""
    data.prompts.look(split, policy, data.sampler, most, first, True)
    examples = data.prompts.of(split)
    used = examples.select(range(min(len(examples), first or len(examples))))
    return [len(policy.encode_prompt(messages)) for messages in used["prompt"]]


def _stepped(algorithm: Algorithm) -> list[torch.optim.Optimizer]:
    """The optimizer after a step, with the states that it keeps."""
    made: Any = algorithm.configure_optimizers()
    optimizer = made["optimizer"] if isinstance(made, dict) else made
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
    try:
        optimizer.step()
    except Exception as error:  # of an optimizer that looks at numbers
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"model.optimizer: its states can't be had without weights ({reason})") from None
    return [optimizer]


def _place(trainer: Any) -> tuple[bool, int, Strategy]:
    """Whether devices are GPUs, how many there are, and how a model is spread over them."""
    gpu = trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and torch.cuda.is_available())
    given = trainer.devices
    if isinstance(given, str) and given not in ("auto", "-1"):
        parts = [each for each in given.split(",") if each]
        given = len(parts) if "," in given else int(given) if given.isdecimal() else None
        if given is None:
            raise UsageError(f"trainer.devices is {trainer.devices}; give a number")
    if isinstance(given, list):
        given = len(given)
    here = torch.cuda.device_count() if gpu else 1
    ranks = trainer.num_nodes * (max(1, here) if given in ("auto", "-1", -1) else given)
    name = trainer.strategy if isinstance(trainer.strategy, str) else trainer.strategy.class_path
    return gpu, ranks, "one" if ranks == 1 else "fsdp2" if name.lower().endswith("fsdp2") else "ddp"


def _memory(gpu: bool, processes: int) -> float:
    """Bytes of a device of this machine."""
    if not gpu:
        return psutil.virtual_memory().total / processes
    if not torch.cuda.is_available():
        raise UsageError(
            "--memory: there is no GPU here that could be looked at; give the GiB of one, as in --memory 80"
        )
    return float(torch.cuda.get_device_properties(0).total_memory)


def _optional(algorithm: Algorithm, noise: bool) -> tuple[str, ...]:
    """Of what takes memory, that which the run does not need."""
    needs = isinstance(algorithm, OnlineDPO | RTO) or algorithm.kl_coefficient > 0
    kept = algorithm.reference is not None and not needs and not algorithm.policy.recipe.get("lora_rank")
    return (NOISE,) * noise + (REFERENCE,) * kept


def _notes(data: RolloutDataModule, known: bool) -> tuple[str, ...]:
    notes = []
    if not known:
        notes.append(f"what {type(data.sampler).__name__} takes is not in it")
    if data.task.converses():
        notes.append("what an environment says comes on top")
    if data.samples_again:
        notes.append("prompts that are sampled again (data.resample, data.hints) come on top")
    return tuple(notes)
