"""The policy: a causal language model of transformers with its tokenizer."""

import copy
import hashlib
import os
from collections.abc import Collection
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lit_rl.errors import UsageError
from lit_rl.policy.chat import check_thoughts, end_of_turn, reply_ids
from lit_rl.policy.checks import check_language_model
from lit_rl.policy.lora import AdaptersOff, add_adapters, merged
from lit_rl.policy.pieces import OfLogits, in_pieces, of_logits, plain_head, score_norms, tokens_at_once
from lit_rl.policy.reading import on_table, read, read_states
from lit_rl.policy.shapes import without_weights
from lit_rl.ranges import Count, Ranged, Whole
from lit_rl.rollouts import Rollouts

_INSTALLED = Path(__file__).resolve().parents[1] / "embedded"  # where a wheel has them, see setup.py
DATA = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).resolve().parents[2] / "data"
EMBEDDED = {"embedded": "warmstart", "embedded-mid": "mid", "embedded-turns": "turns"}  # their folders in DATA


class CausalPolicy(Ranged, nn.Module, setting="model.policy"):
    """The policy pi(token | prefix): any causal language model that transformers loads, with its tokenizer.

    Attributes:
        recipe: the arguments that load a model of the same shape; empty if there is nothing to load.

    Args:
        path: a folder or a name on the hub, for ``from_pretrained``. ``embedded`` (0.4M parameters), ``embedded-mid``
            (3.2M) and ``embedded-turns`` (0.4M, for tasks of several turns) are models that come with the package.
        weights: ``pretrained`` loads the weights; ``random`` builds the model from its config, with PyTorch's global
            seed.
        dtype: of the parameters. For mixed precision leave it at float32 and set ``trainer.precision``.
        gradient_checkpointing: compute activations again in the backward pass, which saves memory.
        lora_rank: train adapters of this rank instead of the weights (LoRA, 2106.09685, by peft). The reference is then
            the same model with its adapters off. 0 trains the weights.
        lora_alpha: ``lora_alpha / lora_rank`` scales the adapters; null takes twice the rank.
        trust_remote_code: run Python code that the folder or the hub's repository contains.

    Raises:
        UsageError: nothing can be loaded from ``path``, or its tokenizer lacks a chat template or an EOS token.
    """

    recipe: dict[str, Any] = {}  # noqa: RUF012, replaced and never changed

    def __init__(
        self,
        path: str = "embedded",
        weights: Literal["pretrained", "random"] = "pretrained",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        gradient_checkpointing: bool = False,
        lora_rank: Whole = 0,
        lora_alpha: Count | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        if lora_alpha is not None and not lora_rank:
            raise UsageError(
                f"model.policy.lora_alpha is {lora_alpha}, but model.policy.lora_rank is 0; set both, or neither"
            )
        if dtype == "float16":
            raise UsageError(
                "model.policy.dtype float16: small gradients would become 0, for nothing scales the loss of float16 "
                "weights; take bfloat16, or float32 with trainer.precision 16-mixed, which does"
            )
        source = str(DATA / EMBEDDED[path]) if path in EMBEDDED else os.path.expanduser(path)
        if path.startswith((".", "/", "~")) and not Path(source).is_dir():
            raise UsageError(f"model.policy.path: no folder '{source}'; give a folder of save_pretrained or a hub name")
        trust = {"trust_remote_code": trust_remote_code}  # never left open: transformers would ask on the terminal
        try:
            config = AutoConfig.from_pretrained(source, **trust)
            self.tokenizer = AutoTokenizer.from_pretrained(source, **trust)
            without_dropout(config)
            kwargs: dict[str, Any] = {"dtype": getattr(torch, dtype), **trust}
            if weights == "random" or without_weights():
                with torch.device("meta") if without_weights() else nullcontext():
                    model = AutoModelForCausalLM.from_config(config, **kwargs)
            else:
                model = AutoModelForCausalLM.from_pretrained(source, config=config, **kwargs)
        except Exception as error:  # whatever the libraries that read configs, tokenizers and weights raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"model.policy.path: cannot load a causal language model from '{path}': {reason}"
            ) from None
        check_language_model(model, self.tokenizer, path)
        if gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if lora_rank:
            with torch.device("meta") if without_weights() else nullcontext():
                add_adapters(model, lora_rank, 2 * lora_rank if lora_alpha is None else lora_alpha)
        place = os.path.abspath(source) if os.path.isdir(source) else source
        self.recipe = {"path": place, "weights": weights, "dtype": dtype}
        self.recipe |= {"lora_rank": lora_rank, "lora_alpha": lora_alpha}
        eos, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        stop = model.generation_config.eos_token_id
        stops = {eos, *([] if stop is None else [stop] if isinstance(stop, int) else stop)}
        self._adopt(model, eos, eos if pad is None else pad, stops)

    def _adopt(self, model: Any, eos_id: int, pad_id: int, stop_ids: Collection[int]) -> None:
        self.model = model.train()  # without dropout it computes the same, and gradient checkpointing needs it
        self.eos_id, self.pad_id = eos_id, pad_id
        self.register_buffer("stop_ids", torch.tensor(sorted(stop_ids), dtype=torch.long), persistent=False)
        self.stop_ids: Tensor

    def reference(self) -> "CausalPolicy":
        """A frozen copy of the policy as it is now.

        With adapters it is the policy itself with them off, which costs no memory.
        """
        if not self.recipe.get("lora_rank"):
            return copy.deepcopy(self).requires_grad_(False)
        return copy.deepcopy(self, {id(self.model): AdaptersOff(self.model)})  # all but the model is copied

    def save_pretrained(self, folder: Path) -> None:
        """Writes model and tokenizer for ``from_pretrained``; adapters are merged into the weights."""
        model = merged(self.model) if self.recipe["lora_rank"] else self.model
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @property
    def device(self) -> torch.device:
        return self.stop_ids.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of log-probabilities: that of the parameters, but at least float32."""
        return torch.promote_types(next(self.parameters()).dtype, torch.float32)

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits that identify these weights, without adapters; of a mere shape the same for all."""
        digest = hashlib.sha256()
        for parameter in (p for name, p in self.named_parameters() if "lora_" not in name and not p.is_meta):
            digest.update(parameter.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:12]

    def encode_prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a chat up to where the answer begins, by the tokenizer's chat template."""
        ids: Any = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return ids

    def encode_reply(self, messages: list[dict[str, str]], reply: list[dict[str, str]]) -> list[int]:
        """Token ids of what an environment says, from behind the policy's stop token to where its next turn begins.

        Args:
            messages: of the conversation, the policy's last turn the last of them.
            reply: behind that turn; the texts of special tokens are taken out of it.

        Raises:
            UsageError: the chat template can't add messages to a conversation whose tokens stay what they are.
        """
        return reply_ids(self.tokenizer, self.stop_ids.tolist(), messages, reply)

    @property
    def end_id(self) -> int:
        """The token that ends a turn by the chat template: EOS, or another stop token."""
        return end_of_turn(self.tokenizer, self.stop_ids.tolist())

    def check_turns(self) -> None:
        """That the chat template leaves earlier turns of the policy as they are.

        Raises:
            UsageError: it does not.
        """
        check_thoughts(self.tokenizer)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of an answer, without special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Tensor) -> str:
        """Text of a response's ids [tokens], without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def forward(self, rollouts: Rollouts, temperature: float, whole: bool = False) -> Tensor:
        """log pi(a_t | s_t) [N, T] in ``dtype``, from logits divided by ``temperature``; 0 outside the mask.

        A row's numbers depend on the other rows by rounding alone; with the same rows they are the same to the bit.

        Args:
            rollouts: N rows.
            temperature: above 0.
            whole: read each group by itself and compute all logits at once, however much memory they take.
        """
        return self._read(rollouts, temperature, partial(of_logits, entropy=False), whole)[0]

    def logprobs_and_entropy(self, rollouts: Rollouts, temperature: float) -> tuple[Tensor, Tensor]:
        """:meth:`forward`, and the entropy of pi(. | s_t) [N, T] in nats, which has no gradient."""
        logprobs, entropy = self._read(rollouts, temperature, partial(of_logits, entropy=True))
        return logprobs, entropy

    @torch.no_grad()
    def score_norms(self, rollouts: Rollouts, temperature: float) -> Tensor:
        """|1[a_t] - pi(. | s_t)|^2, the squared norm of the score of a token by the logits divided by ``temperature``:
        [N, T], 0 outside the mask."""
        return self._read(rollouts, temperature, score_norms)[0]

    def logprobs_and_states(self, rollouts: Rollouts, temperature: float) -> tuple[Tensor, Tensor]:
        """:meth:`forward`, and the model's last hidden state of each s_t: [N, T, H], 0 outside the mask."""
        mask = rollouts.mask
        logits, hidden = read(self.model, rollouts, states=True)
        logprobs, _ = of_logits(self._scaled(logits, temperature), rollouts.response_ids[mask], entropy=False)
        return on_table(logprobs, mask), on_table(hidden, mask)

    def states(self, rollouts: Rollouts) -> Tensor:
        """The model's last hidden state of each s_t, without logits: [N, T, H], 0 outside the mask."""
        return states(self.model.base_model, rollouts)

    def logits(self, rollouts: Rollouts, temperature: float) -> Tensor:
        """The logits of pi(. | s_t) divided by ``temperature``: [N, T, V] in ``dtype``, 0 outside the mask."""
        return on_table(self._scaled(read(self.model, rollouts)[0], temperature), rollouts.mask)

    def _scaled(self, logits: Tensor, temperature: float) -> Tensor:
        logits = logits.to(self.dtype)
        return logits if temperature == 1 else logits / temperature

    @property
    def vocabulary(self) -> int:
        """The number of tokens that have a logit."""
        return int(self.model.config.get_text_config(decoder=True).vocab_size)

    def _read(self, rollouts: Rollouts, temperature: float, of: OfLogits, whole: bool = False) -> tuple[Tensor, ...]:
        ids = rollouts.response_ids[rollouts.mask]
        large = not whole and len(ids) > tokens_at_once(self.vocabulary)
        head = plain_head(self.model) if large else None
        if head is None:
            logits = self._scaled(read(self.model, rollouts, apart=whole)[0], temperature)
            found = of(logits, ids)
        else:
            hidden = read_states(self.model.base_model, rollouts)
            found = in_pieces(head, hidden, ids, temperature, self.dtype, of)
        return tuple(on_table(each, rollouts.mask) for each in found)


def states(base: nn.Module, rollouts: Rollouts) -> Tensor:
    """The last hidden state of each s_t, by a causal model without its head: [N, T, H], 0 outside the mask."""
    return on_table(read_states(base, rollouts), rollouts.mask)


def without_dropout(config: Any) -> None:
    """Sets every dropout probability of a transformers config to 0: a dropped unit is a change of policy."""
    for name, value in vars(config).items():
        if isinstance(value, float) and ("drop" in name):
            setattr(config, name, 0.0)
