"""vLLM's engine in the process of the trainer: made for its model, given its weights, asked, and put to sleep."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from lightning.pytorch.utilities.seed import isolate_rng
from psutil import virtual_memory
from torch import Tensor, distributed
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.policy.lora import whole_weights
from lit_rl.sampling.decoding import diverged

OF_VLLM = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, so that weights are handed over as they are
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
}
NAMES = {
    "--gpu-memory-utilization": "data.sampler.memory_share",
    "gpu_memory_utilization": "data.sampler.memory_share",
    "max_model_len": "data.sampler.max_model_len",
    "max_num_seqs": "data.sampler.batch_rows",
}


@dataclass
class Engine:
    """Answers requests by a policy's weights. Its settings are those of :class:`lit_rl.sampling.vllm.VLLM`."""

    batch_rows: int
    memory_share: float
    tensor_parallel_size: int
    dtype: str | None
    max_model_len: int | None
    eager: bool | None
    sleep: bool
    _llm: Any = None
    _serves: tuple[str, str] | None = None  # model and dtype
    _weights: Tensor | None = None  # what tells those that it has from others
    _asleep: bool = False

    def beside(self, device: torch.device) -> bool:
        """Whether it is on the device of the policy; of several GPUs it takes the first ones."""
        return self.tensor_parallel_size == 1 or (device.index or 0) < self.tensor_parallel_size

    def sleeps(self, device: torch.device) -> bool:
        """Whether it gives its memory back between calls: on GPUs of its own, nobody else would take it."""
        return self.sleep and device.type == "cuda" and self.beside(device)

    @contextmanager
    def awake(self, policy: CausalPolicy) -> Iterator[None]:
        """Within, the engine is there, has its memory and the policy's weights.

        Raises:
            UsageError: vLLM can't serve the model, or is serving another one; or weights are NaN.
        """
        on_gpu = policy.device.type == "cuda"
        if on_gpu:
            torch.cuda.empty_cache()  # the engine allocates by itself
        self._begin(policy)
        try:
            self._push(policy)
            yield
        finally:
            if self.sleeps(policy.device):
                self._llm.sleep(level=1)
                self._asleep = True

    def generate(self, policy: CausalPolicy, requests: Sequence[Sequence[int]], params: Sequence[Any]) -> list[Any]:
        """vLLM's answers to token ids, in order.

        Raises:
            UsageError: a request is longer than the engine takes, or the model is none for its kernels.
        """
        prompts = [{"prompt_token_ids": list(ids)} for ids in requests]
        with _apart(policy):
            try:
                return self._llm.generate(prompts, params, use_tqdm=False)
            except torch.OutOfMemoryError:
                raise
            except (ValueError, RuntimeError) as error:
                raise UsageError(
                    f"data.sampler: vLLM can't answer ({_line(error)}); change what it names, or take LocalSampler"
                ) from error

    def _begin(self, policy: CausalPolicy) -> None:
        model = policy.model
        if not isinstance(model, PreTrainedModel):
            raise UsageError("data.sampler: vLLM takes models of transformers, and this is none; take LocalSampler")
        kind = policy.device.type
        computed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype
        dtype = self.dtype or str(computed).removeprefix("torch.")
        serves = model.config.to_json_string(), dtype
        if self._llm is None:
            with _apart(policy):
                self._llm, self._serves = self._start(model, policy.device, dtype), serves
        elif self._serves != serves:
            raise UsageError("data.sampler: this VLLM serves another model or precision; make another for this one")
        elif self._asleep:
            self._llm.wake_up()
            self._asleep = False

    def _push(self, policy: CausalPolicy) -> None:
        """Gives the engine the policy's weights, if it has others, and has it forget what it knows by the others."""
        weights = whole_weights(policy.model)
        seen = torch.stack([_moments(each) for each in weights.values()]).cpu()
        if not seen.isfinite().all():
            raise diverged()
        if self._weights is not None and torch.equal(seen, self._weights):
            return
        if self.tensor_parallel_size > 1:  # to other processes
            weights = {name: each.cpu() for name, each in weights.items()}
        with _apart(policy):
            try:
                # the way for a trainer in the engine's process; vLLM's weight transfer is for trainers in others
                self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": list(weights.items())})
            except (KeyError, ValueError) as error:
                raise UsageError(
                    f"model.policy.path: vLLM does not know this model's weights ({_line(error)}); take LocalSampler"
                ) from None
            self._llm.reset_prefix_cache()
        self._weights = seen

    def _start(self, model: PreTrainedModel, device: torch.device, dtype: str) -> Any:
        """An engine for models like this one, with weights of its own making."""
        on_cpu, alone = device.type == "cpu", self.tensor_parallel_size == 1
        if not alone and distributed.is_initialized() and distributed.get_world_size() > 1:
            raise UsageError(
                f"data.sampler.tensor_parallel_size is {self.tensor_parallel_size}, and there are several training "
                "processes; set it to 1, where each has an engine, or trainer.devices 1"
            )
        config = deepcopy(model.config)
        of_transformers = (each for each in type(model).__mro__ if not issubclass(each, FSDPModule))
        config.architectures = [next(of_transformers).__name__]
        with tempfile.TemporaryDirectory() as folder, environment(OF_VLLM | (_place(device) if alone else {})):
            config.save_pretrained(folder)
            from vllm import LLM

            try:
                return LLM(
                    folder,
                    load_format="dummy",
                    skip_tokenizer_init=True,
                    generation_config="vllm",  # what requests leave open, no file decides
                    dtype=dtype,
                    max_model_len=self.max_model_len,
                    max_num_seqs=self.batch_rows,
                    gpu_memory_utilization=self.memory_share,
                    kv_cache_memory_bytes=int(self.memory_share * virtual_memory().total) if on_cpu else None,
                    tensor_parallel_size=self.tensor_parallel_size,
                    distributed_executor_backend="external_launcher" if alone else "mp",
                    enforce_eager=on_cpu if self.eager is None else self.eager,
                    enable_prefix_caching=True,
                    block_size=32 if on_cpu else None,  # its attention on a CPU takes no fewer
                    logprobs_mode="processed_logprobs",  # at the temperature
                    enable_sleep_mode=self.sleeps(device),
                )
            except Exception as error:  # whatever vLLM and what it is built on raise
                raise UsageError(
                    f"data.sampler: vLLM can't serve this model ({_line(error)}); change what it names, or take "
                    "LocalSampler"
                ) from error


@contextmanager
def _apart(policy: CausalPolicy) -> Iterator[None]:
    """Within, nobody's random numbers are drawn, and there is no autocast."""
    kind = policy.device.type
    devices = [policy.device] if kind == "cuda" else []  # others would get a context of this process
    with isolate_rng(include_cuda=False), torch.random.fork_rng(devices), torch.autocast(kind, enabled=False):
        yield


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Within, the process has these environment variables; those of vLLM's own stay."""
    before = {name: os.environ.get(name) for name in values if not name.startswith("VLLM_")}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _place(device: torch.device) -> dict[str, str]:
    """What torchrun would say to this process, by which vLLM takes its device and joins the others."""
    known = distributed.is_initialized()
    return {
        "RANK": str(distributed.get_rank() if known else 0),
        "WORLD_SIZE": str(distributed.get_world_size() if known else 1),
        "LOCAL_RANK": str(device.index or 0),
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": os.environ.get("MASTER_PORT") or str(find_free_network_port()),
    }


def _moments(weights: Tensor) -> Tensor:
    """Two numbers that no update leaves as they are: [2]."""
    total, norm = weights.sum(dtype=torch.float64), torch.linalg.vector_norm(weights, dtype=torch.float64)
    return torch.stack([total, norm])


def _line(error: Exception) -> str:
    """What vLLM says, in short, with our names of its settings."""
    said = str(error) or type(error).__name__
    for theirs, own in NAMES.items():
        said = said.replace(theirs, own)
    return shorten(said, 400)
