"""Fits a reward model to a task's scores of a policy's responses."""

import copy
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, LlamaConfig

from lit_rl.errors import UsageError
from lit_rl.policy import CausalPolicy, RewardModel
from lit_rl.policy.causal import without_dropout
from lit_rl.policy.lora import merged
from lit_rl.rollouts import Rollouts


class RewardFitting(LightningModule):
    """Fits the model's scores s to labels y in 0..1 by the cross-entropy ``-y log p - (1 - y) log(1 - p)``.

    For an outcome ``p = sigmoid(s)``; for a pair ``p = sigmoid(s_first - s_second)``, which with y = 1 is Bradley and
    Terry's ``-log sigmoid(s_w - s_l)``. A batch is rows and labels, see :func:`training_loader`; in validation it is
    rows alone, all of ``held_out`` in their order.

    Args:
        held_out: scored responses, as many for each prompt; some to one prompt have different scores.
        outcomes: also judge on which side of 0 a score is.
        learning_rate: of AdamW.
    """

    def __init__(self, model: RewardModel, held_out: Rollouts, outcomes: bool, learning_rate: float) -> None:
        super().__init__()
        self.model, self.held_out, self.outcomes = model, held_out, outcomes
        self.learning_rate = learning_rate
        self._scores: list[Tensor] = []

    def training_step(self, batch: tuple[Rollouts, Tensor], batch_idx: int) -> Tensor:
        rollouts, labels = batch
        loss = binary_cross_entropy_with_logits(logits(self.model(rollouts), labels), labels)
        self._log({"train/loss": loss}, len(labels))
        return loss

    def validation_step(self, rollouts: Rollouts, batch_idx: int) -> None:
        self._scores.append(self.model(rollouts).cpu())

    def on_validation_epoch_end(self) -> None:
        scores, rewards = torch.cat(self._scores), self.held_out.rewards
        self._scores.clear()
        assert rewards is not None
        first, second = scores[ordered_pairs(self.held_out)].T
        values = {"val/pair_accuracy": (first > second).float().mean()}
        if self.outcomes:
            values["val/outcome_accuracy"] = ((scores > 0) == (rewards > 0.5)).float().mean()
            values["val/loss"] = binary_cross_entropy_with_logits(scores, rewards)
        else:
            values["val/loss"] = binary_cross_entropy_with_logits(first - second, torch.ones_like(first))
        self._log(values)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=self.learning_rate, weight_decay=0.0)

    def _log(self, values: dict[str, Tensor], batch_size: int = 1) -> None:
        """Means over an epoch, against the number of epochs finished at its end."""
        step = {"step": float(self.current_epoch + 1)}
        self.log_dict({**values, **step}, on_step=False, on_epoch=True, batch_size=batch_size)


def logits(scores: Tensor, labels: Tensor) -> Tensor:
    """What labels are about: their row's score or, with two rows a label, the first's minus the second's: [n]."""
    scores = scores.view(len(labels), -1)
    return scores[:, 0] if scores.shape[1] == 1 else scores[:, 0] - scores[:, 1]


def ordered_pairs(rollouts: Rollouts) -> Tensor:
    """Row numbers [n, 2] of all pairs of responses to one prompt with different scores, the better one first.

    Args:
        rollouts: scored, prompt by prompt, as many responses for each.
    """
    pairs, difference = _all_pairs(rollouts)
    return torch.where(difference[:, None] < 0, pairs.flip(1), pairs)[difference != 0]


def ties(rollouts: Rollouts) -> int:
    """How many pairs of responses to one prompt have the same score."""
    return int((_all_pairs(rollouts)[1] == 0).sum())


def _all_pairs(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    assert rollouts.rewards is not None, "score the rollouts first"
    by_prompt = torch.arange(len(rollouts)).view(int(rollouts.group.max()) + 1, -1)
    pairs = by_prompt[:, torch.combinations(torch.arange(by_prompt.shape[1]))].view(-1, 2)
    first, second = rollouts.rewards.cpu()[pairs].T
    return pairs, first - second


def flip(labels: Tensor, share: float, seed: int) -> Tensor:
    """1 - y for a share of the labels, drawn without replacement; the others as they are: [n]."""
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[: round(share * len(labels))]
    return labels.index_copy(0, drawn, 1 - labels[drawn])


def training_loader(rollouts: Rollouts, rows: Tensor, labels: Tensor, batch_rows: int) -> DataLoader:
    """Shuffled batches of about ``batch_rows`` rows with their labels.

    Args:
        rows: row numbers of each label: [n, 2] for pairs, [n, 1] for outcomes.
        labels: [n] in 0..1.
    """

    def collate(items: list[int]) -> tuple[Rollouts, Tensor]:
        return rollouts.select(rows[items].flatten()), labels[items]

    size = max(1, batch_rows // rows.shape[1])
    return DataLoader(range(len(labels)), size, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]


def held_out_loader(rollouts: Rollouts, batch_rows: int) -> DataLoader:
    """All rows in their order, ``batch_rows`` at a time."""
    return DataLoader(range(len(rollouts)), batch_rows, collate_fn=lambda i: rollouts.select(torch.tensor(i)))  # type: ignore[arg-type]


def from_policy(policy: CausalPolicy) -> RewardModel:
    """A reward model on a copy of the policy's trunk, its head random (from PyTorch's global seed).

    Raises:
        UsageError: transformers has no sequence classifier with a head ``score`` on such a trunk.
    """
    try:
        model = _build(copy.deepcopy(policy.model.config))
        source: Any = merged(policy.model) if policy.recipe.get("lora_rank") else policy.model
        model.base_model.load_state_dict(source.base_model.state_dict())
        assert isinstance(model.score, torch.nn.Linear)
    except Exception:  # whatever transformers raises for an architecture that it has no classifier of
        name = type(policy.model).__name__
        raise UsageError(
            f"model.policy: a reward model can't start from a {name}, for which transformers has no sequence "
            "classifier with a head `score`; set start random"
        ) from None
    return RewardModel(model)


def from_scratch(policy: CausalPolicy, hidden_size: int, layers: int, heads: int) -> RewardModel:
    """A Llama of these sizes over the policy's vocabulary, with random weights (from PyTorch's global seed).

    Raises:
        UsageError: the hidden size is no multiple of 2 x heads.
    """
    if hidden_size % (2 * heads):
        raise UsageError(f"hidden_size is {hidden_size}, heads {heads}; make the first a multiple of 2 x the other")
    own = policy.model.config
    config = LlamaConfig(
        vocab_size=own.vocab_size,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=getattr(own, "max_position_embeddings", 2048),
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return RewardModel(_build(config))


def _build(config: Any) -> Any:
    without_dropout(config)
    config.num_labels = 1
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32, attn_implementation="eager")
