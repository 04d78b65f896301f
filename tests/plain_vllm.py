"""What the sampler needs of vLLM, in a few lines: one request after the other, without a cache or a batch."""

import importlib.machinery
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

BLOCK = 4  # tokens of a block of the prefix cache


class SamplingParams(SimpleNamespace):
    pass


class LLM:
    """Draws by inverting the cumulative distribution, from numbers of the request's own seed."""

    def __init__(self, folder, load_format, dtype, **settings):
        assert load_format == "dummy" and settings["logprobs_mode"] == "processed_logprobs"
        config = AutoConfig.from_pretrained(folder)
        torch.manual_seed(settings.get("seed", 0))  # as vLLM does
        self.model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
        assert config.architectures == [type(self.model).__name__]
        self.held = set()
        self.most = settings["max_model_len"] or config.max_position_embeddings

    def collective_rpc(self, method, kwargs):
        assert method == "reload_weights"
        weights = dict(kwargs["weights_iterator"])
        self.model.load_state_dict(weights)

    def reset_prefix_cache(self):
        self.held.clear()

    def generate(self, prompts, params, use_tqdm):
        assert not torch.is_autocast_enabled("cpu")
        torch.rand(3)  # vLLM draws from PyTorch's generator, too
        return [self._answer(each["prompt_token_ids"], each_of) for each, each_of in zip(prompts, params, strict=True)]

    def _answer(self, prompt, params):
        blocks = {tuple(prompt[:end]) for end in range(BLOCK, len(prompt), BLOCK)}
        cached = BLOCK * len(blocks & self.held)
        uniforms, written, logprobs = np.random.default_rng(params.seed), [], []
        if len(prompt) >= self.most:
            raise ValueError("the prompt is longer than max_model_len")
        most = min(params.max_tokens, self.most - len(prompt))
        while len(written) < most and (not written or written[-1] not in params.stop_token_ids):
            logits = self.model(input_ids=torch.tensor([[*prompt, *written]])).logits[0, -1].double()
            chances = (logits / (params.temperature or 1.0)).softmax(-1)
            drawn = int((chances.cumsum(-1) <= uniforms.random()).sum().clamp(max=len(chances) - 1))
            written.append(drawn if params.temperature else int(logits.argmax()))
            logprobs.append({written[-1]: SimpleNamespace(logprob=float(chances[written[-1]].log()))})
        whole = [*prompt, *written]
        self.held |= {tuple(whole[:end]) for end in range(BLOCK, len(whole), BLOCK)}
        answer = SimpleNamespace(token_ids=tuple(written), logprobs=logprobs)
        return SimpleNamespace(outputs=[answer], num_cached_tokens=cached)


def installed(monkeypatch):
    """Puts this in the place of vLLM."""
    module = ModuleType("vllm")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
