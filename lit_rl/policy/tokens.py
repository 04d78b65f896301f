"""Policies over the token ids 0..V-1, for tasks without text: small enough to be known exactly."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy
from lit_rl.ranges import Count, NonNegative, Several

MOST_LOGITS = 2**24  # of a table


class TokenPolicy(CausalPolicy):
    """A causal model whose text is the decimal token ids, separated by blanks."""

    def __init__(self, model: nn.Module, vocabulary: int, eos: bool) -> None:
        nn.Module.__init__(self)
        self._adopt(model, vocabulary - 1 if eos else -1, 0, [vocabulary - 1] if eos else [])

    def encode_prompt(self, messages: list[dict[str, str]]) -> list[int]:
        return self.encode_text(" ".join(message["content"] for message in messages))

    def encode_reply(self, messages: list[dict[str, str]], reply: list[dict[str, str]]) -> list[int]:
        return self.encode_prompt(reply)

    @property
    def end_id(self) -> int:
        return self.eos_id

    def check_turns(self) -> None:
        """There is no template."""

    def encode_text(self, text: str) -> list[int]:
        if not all(word.isdecimal() and int(word) < self.model.config.vocab_size for word in text.split()):
            raise UsageError(
                f"model.policy knows the tokens 0 to {self.model.config.vocab_size - 1} only, but the task has "
                "text; set a language model, or a task of position credit"
            )
        return [int(word) for word in text.split()]

    def decode(self, ids: Tensor) -> str:
        return " ".join(map(str, ids.tolist()))


class TokenTransformer(TokenPolicy):
    """A small Llama over the token ids 0..V-1, with random weights (from PyTorch's global seed).

    Args:
        vocabulary: number of tokens (V), the last of them EOS if ``eos``.
        length: the most tokens of a response.
        eos: whether the last token ends a response.
        hidden_size: of the Llama.
        layers: of the Llama.
        heads: of the Llama.
    """

    def __init__(
        self,
        vocabulary: Several = 4,
        length: Count = 8,
        eos: bool = False,
        hidden_size: Count = 96,
        layers: Count = 3,
        heads: Count = 4,
    ) -> None:
        _check(vocabulary, eos)
        if hidden_size % (2 * heads):
            raise UsageError(
                f"model.policy.hidden_size is {hidden_size}, model.policy.heads {heads}; make the first a multiple "
                "of 2 x the other"
            )
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden_size,
            intermediate_size=hidden_size * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=length + 1,  # the prompt is one token
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,  # token 0 is one like any other
        )
        super().__init__(LlamaForCausalLM(config), vocabulary, eos)


class TabularPolicy(TokenPolicy):
    """A table of logits with a row for every prefix of a response: a free distribution in every state.

    Args:
        vocabulary: number of tokens (V), the last of them EOS if ``eos``.
        length: the most tokens of a response; the table has (V^length - 1) / (V - 1) rows.
        eos: whether the last token ends a response.
        spread: standard deviation of the initial logits (from PyTorch's global seed); 0 starts uniform.
    """

    def __init__(
        self, vocabulary: Several = 4, length: Count = 8, eos: bool = False, spread: NonNegative = 0.0
    ) -> None:
        _check(vocabulary, eos)
        if length * math.log(vocabulary) > math.log(MOST_LOGITS):
            raise UsageError(
                f"model.policy.length is {length}: a table for {vocabulary} tokens has at most "
                f"{int(math.log(MOST_LOGITS, vocabulary))}; lower it, or take TokenTransformer"
            )
        super().__init__(PrefixTable(vocabulary, length, spread), vocabulary, eos)


def _check(vocabulary: int, eos: bool) -> None:
    if vocabulary < 2 + eos:
        raise UsageError(f"model.policy.vocabulary is {vocabulary}; choose at least {2 + eos}: two tokens besides EOS")


class PrefixTable(nn.Module):
    """``TabularPolicy``'s table behind the interface of a causal model, linear in the prefix's indicator.

    States are numbered as in a heap: the prompt's is 0, and token a leads from s to s V + a + 1. The last hidden state
    is one-hot in them, so that a linear head on it is a table as well. The cache holds the token ids seen.
    """

    def __init__(self, vocabulary: int, length: int, spread: float) -> None:
        super().__init__()
        states = sum(vocabulary**t for t in range(length))
        sizes: dict[str, Any] = {
            "vocab_size": vocabulary,
            "num_hidden_layers": 1,
            "max_position_embeddings": length + 1,
            "hidden_size": states,
        }
        self.config: Any = PreTrainedConfig(**sizes)
        self.table = nn.Parameter(spread * torch.randn(states, vocabulary))

    @property
    def base_model(self) -> "PrefixIndicator":
        return PrefixIndicator(self.config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        past_key_values: Any = None,
        logits_to_keep: int = 0,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        states = _states(input_ids, attention_mask, past_key_values, self.config)
        known = states[:, -(logits_to_keep or input_ids.shape[1]) :]
        fed = states[:, -input_ids.shape[1] :]
        hidden = (one_hot(fed, self.config.hidden_size).to(self.table),) if output_hidden_states else None
        return CausalLMOutputWithPast(logits=self.table[known], hidden_states=hidden)


class PrefixIndicator(nn.Module):
    """A table's model without its table: the hidden state is one-hot in the prefix."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, past_key_values: Any = None, **_: Any
    ) -> BaseModelOutputWithPast:
        states = _states(input_ids, attention_mask, past_key_values, self.config)
        hidden = one_hot(states[:, -input_ids.shape[1] :], self.config.hidden_size)
        return BaseModelOutputWithPast(last_hidden_state=hidden.float())


def _states(ids: Tensor, attention_mask: Tensor, cache: Any, config: Any) -> Tensor:
    """The number of the prefix that ends with each token, those in the cache included: [N, tokens]."""
    if cache is not None:
        as_keys = ids[:, None, :, None]
        ids = cache.update(as_keys, as_keys, 0)[0][:, 0, :, 0]
    state = torch.full_like(ids[:, 0], -1)  # before the prompt's one token
    states = []
    for token, real in zip(ids.T, attention_mask.T.bool(), strict=True):
        state = torch.where(real, torch.where(state < 0, 0, state * config.vocab_size + token + 1), state)
        states.append(state)
    return torch.stack(states, 1).clamp(0, config.hidden_size - 1)
