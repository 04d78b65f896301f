"""The reward model: a transformers sequence classifier with one label, which reads the policy's token ids."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from lit_rl.errors import UsageError
from lit_rl.policy.causal import CausalPolicy, without_dropout
from lit_rl.policy.reading import whole_inputs
from lit_rl.policy.shapes import without_weights
from lit_rl.rollouts import Rollouts


class RewardModel(nn.Module):
    """The score of a response, ``score . h``, where h is the last layer's hidden state of its last token.

    Which tokens are padding is known from the lengths, never from token values. (transformers' own pooling looks for
    pad tokens, which a vocabulary of bare tokens does not have.)

    Args:
        model: a decoder-only sequence classifier with one label, its head named ``score``, with eager attention.
        setting: the setting that it comes from, for messages.
    """

    def __init__(self, model: Any, setting: str = "reward.model") -> None:
        super().__init__()
        self.model, self.setting = model.float(), setting

    @classmethod
    def load(cls, path: str, setting: str = "reward.model") -> "RewardModel":
        """From a folder of ``save_pretrained``, or a hub name; float32, without dropout.

        Args:
            path: the folder or the name.
            setting: that it comes from, for messages.

        Raises:
            UsageError: nothing can be loaded from ``path``, or it is no decoder with one label and a head ``score``,
                or its weights are not finite.
        """
        source = str(Path(path).expanduser())
        if path.startswith((".", "/", "~")) and not Path(source).is_dir():
            raise UsageError(f"{setting}: no folder '{path}'; give one that fit-reward has written or a hub name")
        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            without_dropout(config)
            kind, missing = AutoModelForSequenceClassification, []
            options = {"dtype": torch.float32, "attn_implementation": "eager", "trust_remote_code": False}
            if without_weights():
                with torch.device("meta"):
                    model = kind.from_config(config, **options)
            else:
                model, loading = kind.from_pretrained(source, config=config, output_loading_info=True, **options)
                missing = loading["missing_keys"]
        except Exception as error:  # whatever the libraries that read configs and weights raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(f"{setting}: cannot load a reward model from '{path}': {reason}") from None
        head = getattr(model, "score", None)
        if not isinstance(head, nn.Linear) or head.out_features != 1 or missing:
            raise UsageError(
                f"{setting}: '{path}' is no reward model, a decoder with a trained head `score` of one label; "
                "make one with python -m lit_rl fit-reward"
            )
        if not all(x.is_meta or x.isfinite().all() for x in model.parameters()):
            raise UsageError(f"{setting}: '{path}' has weights that are no finite numbers; fit it anew")
        return cls(model, setting)

    def check(self, policy: CausalPolicy) -> None:
        """That the model may read the policy's token ids: it has as many tokens.

        Raises:
            UsageError: their vocabularies differ in size.
        """
        own, other = self.model.config.vocab_size, policy.model.config.vocab_size
        if own != other:
            raise UsageError(
                f"{self.setting} has a vocabulary of {own} tokens and the policy one of {other}; it reads the policy's "
                "token ids, so fit it to this policy"
            )

    def forward(self, rollouts: Rollouts) -> Tensor:
        """The scores [N] float32. Up to rounding, a row's score depends neither on padding nor on the other rows.

        Raises:
            UsageError: a row has more tokens than the model can read.
        """
        out, last = self._run(rollouts)
        with torch.autocast(last.device.type, enabled=False):  # in half precision different responses would tie
            return self.model.score(_at(out.last_hidden_state, last).to(self.model.score.weight)).squeeze(-1)

    def attention(self, rollouts: Rollouts) -> Tensor:
        """The share of the last token's attention that each token of the policy gets (ABC, 2402.00782).

        ``a_t / sum_s a_s``, where a is the last layer's attention of the last token, averaged over heads, to the tokens
        that the policy wrote.

        Returns:
            [N, T] float32: rows sum to 1, and are 0 at an environment's tokens and after the end.

        Raises:
            UsageError: a row has more tokens than the model can read.
        """
        out, last = self._run(rollouts, output_attentions=True)
        attention = out.attentions[-1]
        weights = _at(attention.to(torch.promote_types(attention.dtype, torch.float32)).mean(1), last)
        over_response = weights[:, rollouts.prompt_ids.shape[1] :] * rollouts.written
        return over_response / over_response.sum(1, keepdim=True)

    def _run(self, rollouts: Rollouts, **options: Any) -> tuple[Any, Tensor]:
        """The base model's output, and the column of each row's last token [N]."""
        longest = int((rollouts.prompt_mask.sum(1) + rollouts.lengths).max())
        most = getattr(self.model.config, "max_position_embeddings", None)
        if most is not None and longest > most:
            raise UsageError(
                f"{self.setting} has {most} positions, fewer than the {longest} tokens of a prompt with its response; "
                "lower model.max_new_tokens, or fit a longer one"
            )
        out = self.model.base_model(**whole_inputs(rollouts), use_cache=False, **options)
        return out, rollouts.prompt_ids.shape[1] + rollouts.lengths - 1


def _at(x: Tensor, column: Tensor) -> Tensor:
    """Row i's entry at its own column: [N, C, D], [N] -> [N, D]."""
    return x[torch.arange(len(x), device=x.device), column]
