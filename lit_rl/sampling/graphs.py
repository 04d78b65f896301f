"""Steps of decoding from a CUDA graph: a GPU waits for no Python between its kernels."""

import contextlib
import sys
from collections.abc import Callable

import torch
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.sampling.attention import NAME
from lit_rl.sampling.cache import RowCache


class Replay:
    """Takes a step some times: once as it is, then from a graph of it.

    A graph is captured anew each time, for the rows and slots have changed, in the memory of the one before. The last
    one stays between calls, so that one pool of memory serves all of them: a pool whose graphs are gone is given back
    only where the whole cache is.
    """

    def __init__(self) -> None:
        self._graph: torch.cuda.CUDAGraph | None = None
        self._aside: torch.cuda.Stream | None = None  # memory is used again on the stream that it was allocated on

    def __call__(self, step: Callable[[], None], times: int) -> None:
        step()  # libraries set themselves up, and autocast keeps its casts of weights for the graph
        if times == 1:
            return
        try:
            graph = self._capture(step)
        except torch.OutOfMemoryError:  # a capture can't take from what is cached, only from what is free
            torch.cuda.empty_cache()
            graph = self._capture(step)
        for _ in range(times - 1):
            graph.replay()
        torch.cuda.current_stream().synchronize()  # before the graph in whose memory it ran goes
        self._graph = graph

    def _capture(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        self._aside = self._aside or torch.cuda.Stream()
        self._aside.wait_stream(current)
        with torch.cuda.stream(self._aside):
            graph.capture_begin(self._graph.pool() if self._graph else None, capture_error_mode="thread_local")
            try:
                step()
                graph.capture_end()
            except RuntimeError as error:
                with contextlib.suppress(RuntimeError):
                    graph.capture_end()
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                reason = str(error).strip().splitlines()[0]
                raise UsageError(
                    f"data.sampler.cuda_graphs: a step of this model can't be captured ({reason}); set it to false"
                ) from None
        current.wait_stream(self._aside)
        return graph


def replayable(policy: CausalPolicy, cache: RowCache) -> bool:
    """Whether a step is the same work each time, on a GPU: attention that masks slots and nothing else."""
    models = [each for each in policy.modules() if isinstance(each, PreTrainedModel)][:1]
    attends = all(each.config._attn_implementation == NAME for each in models)
    sharded = any(isinstance(each, FSDPModule) for each in policy.modules())
    whole = cache.cuttable and cache.window == sys.maxsize
    return policy.device.type == "cuda" and bool(models) and attends and whole and not sharded
