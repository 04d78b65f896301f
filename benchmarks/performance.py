"""Where the time goes: scaling of the sampler, an iteration by phases and operators, and kappa of each model."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile

import lit_rl.sampling.local as local
from benchmarks.measure import SMOLLM2, fetched, fit, seconds
from benchmarks.sampling import Sampling
from lit_rl.algorithms import GRPO, PPO, Algorithm, TRePO
from lit_rl.callbacks import RewardCallback
from lit_rl.policy import CausalPolicy, TokenTransformer
from lit_rl.sampling import LocalSampler, SamplingPlan

Row = dict[str, Any]
PHASES = ("prefill", "decode", "continuations", "scoring", "log-probs", "forward", "backward", "step")
OPERATORS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::linear"),
    "attention": ("aten::bmm", "aten::baddbmm", "flash_attention", "aten::_softmax", "aten::masked_fill_"),
    "copies": ("aten::copy_", "aten::cat", "aten::index", "aten::fill_"),
}
ROUNDS = 3


def scaling() -> list[Row]:
    """Tokens a second, decoded and read at once, by rows, response length and size; responses of one length each."""
    base: dict[str, int] = {"rows": 512, "length": 64, "hidden": 96, "layers": 3}
    steps = [("rows", x) for x in (32, 128, 512, 1024)] + [("length", x) for x in (16, 64, 256)]
    sizes = [{"hidden": 96, "layers": 3}, {"hidden": 192, "layers": 6}, {"hidden": 384, "layers": 6}]
    cases = [(by, {**base, by: x}) for by, x in steps] + [("size", {**base, "rows": 128, **size}) for size in sizes]
    found: list[Row] = []
    for by, case in cases:
        torch.manual_seed(0)
        policy = TokenTransformer(420, case["length"], hidden_size=case["hidden"], layers=case["layers"])
        plan = SamplingPlan(samples=case["rows"], max_new_tokens=case["length"])
        sample = lambda: LocalSampler(1024).sample(policy, [[0]], plan, [(0,)])  # noqa: B023, E731
        rollouts = sample()
        read = lambda: _read(policy, rollouts)  # noqa: B023, E731
        tokens = int(rollouts.mask.sum())
        decoded = median(tokens / seconds(sample) for _ in range(ROUNDS))
        whole = median(tokens / seconds(read) for _ in range(ROUNDS))
        size = sum(p.numel() for p in policy.parameters())
        found.append({"by": by, **case, "parameters": size, "decoded_per_s": decoded, "read_per_s": whole})
    return found


def phases() -> list[Row]:
    """Seconds of an iteration of 256 responses by phase, and its tokens."""
    arms: dict[str, Callable[[], Algorithm]] = {
        "GRPO": lambda: GRPO(samples=4, max_new_tokens=64),
        "PPO": lambda: PPO(samples=1, max_new_tokens=64),
        "TRePO": lambda: TRePO(samples=4, max_new_tokens=64),
    }
    found: list[Row] = []
    for name, build in arms.items():
        algorithm, clock = build(), Phases()
        with clock.watching(algorithm):
            total = fit(algorithm, 256 // algorithm.plan.samples, 64, ROUNDS + 1, callbacks=(clock,))
        for phase in PHASES:
            spent = [each[phase] for each in clock.iterations[1:-1]]
            found.append({"algorithm": name, "phase": phase, "seconds": median(spent)})
        rest = median(total) - sum(row["seconds"] for row in found if row["algorithm"] == name)
        found.append({"algorithm": name, "phase": "rest", "seconds": rest})
    return found


class Phases(Callback):
    """Adds up the seconds of each phase, iteration by iteration."""

    def __init__(self) -> None:
        self.iterations: list[dict[str, float]] = [defaultdict(float)]
        self._began = 0.0

    @contextlib.contextmanager
    def watching(self, algorithm: Algorithm) -> Iterator[None]:
        """Within, the functions of the sampler and of the algorithm are timed."""
        owners: list[tuple[Any, str, Callable[..., str]]] = [
            (local, "prefill", lambda *args, **_: "prefill"),
            (LocalSampler, "_decode", lambda *args, **_: "continuations" if (args[3].origin >= 0).any() else "decode"),
            (local, "fork", lambda *args, **_: "continuations"),
            (RewardCallback, "on_train_epoch_start", lambda *args, **_: "scoring"),
            (algorithm, "prepare", lambda *args, **_: "log-probs"),
            (algorithm, "training_step", lambda *args, **_: "forward"),
        ]
        before = [getattr(owner, name) for owner, name, _ in owners]
        for (owner, name, phase), function in zip(owners, before, strict=True):
            setattr(owner, name, self._timed(function, phase))
        try:
            yield
        finally:
            for (owner, name, _), function in zip(owners, before, strict=True):
                setattr(owner, name, function)

    def _timed(self, function: Callable[..., Any], phase: Callable[..., str]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = function(*args, **kwargs)
            self.iterations[-1][phase(*args, **kwargs)] += time.perf_counter() - started
            return result

        return timed

    def _since(self, phase: str) -> None:
        self.iterations[-1][phase] += time.perf_counter() - self._began

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        self._began = time.perf_counter()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since("backward")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._since("step")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.iterations.append(defaultdict(float))


def kappa() -> list[Row]:
    """What a token costs in training, its forward and backward pass, over what it costs to decode."""
    shapes = {"embedded": (256, 64), "embedded-mid": (64, 160)}
    if fetched():
        shapes[str(SMOLLM2)] = (8, 24)
    found: list[Row] = []
    for path, (rows, most) in shapes.items():
        policy = CausalPolicy(path)
        work = Sampling(policy, rows, most)
        decoded = median(work.ours() for _ in range(ROUNDS))
        tokens = int(work.rollouts.mask.sum())

        def train(policy: CausalPolicy = policy, work: Sampling = work) -> None:
            for some in torch.arange(len(work.rollouts)).split(32):
                policy(work.rollouts.select(some), 1.0).sum().backward()

        trained = median(tokens / seconds(train) for _ in range(ROUNDS))
        size = sum(p.numel() for p in policy.parameters())
        found.append(
            {
                "model": path.rpartition("/")[2],
                "parameters": size,
                "rows": len(work.rollouts),
                "decoded_per_s": decoded,
                "trained_per_s": trained,
                "kappa": decoded / trained,
            }
        )
    return found


def operators() -> list[Row]:
    """Shares of the time of PyTorch's operators, and of what is between them, in decoding and in an update."""
    policy = CausalPolicy()
    work = Sampling(policy)
    work.ours()

    def update() -> None:
        for some in torch.arange(len(work.rollouts)).split(64):
            policy(work.rollouts.select(some), 1.0).sum().backward()

    found: list[Row] = []
    for name, job in {"decoding": work.ours, "forward and backward": update}.items():
        alone = median(seconds(job) for _ in range(ROUNDS))
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            job()
        times = {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}
        kinds = {
            kind: sum(spent for key, spent in times.items() if any(part in key for part in parts))
            for kind, parts in OPERATORS.items()
        }
        kinds["other operators"] = sum(spent for key, spent in times.items() if "aten::" in key) - sum(kinds.values())
        kinds["between operators"] = max(0.0, alone - sum(kinds.values()))
        found += [{"work": name, "kind": kind, "seconds": spent} for kind, spent in kinds.items()]
    return found


def _read(policy: CausalPolicy, rollouts: Any) -> None:
    with torch.no_grad():
        for some in torch.arange(len(rollouts)).split(64):
            policy(rollouts.select(some), 1.0)
