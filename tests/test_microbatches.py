"""Micro-batches by tokens: what each takes, that no row is lost, and that they change no gradient."""

from itertools import permutations

import numpy as np
import pytest
import torch
from lightning import Callback
from trees import FORKED, TEXTS, distinct_tokens, forked, sample
from turns import spoken_between

from lit_rl.algorithms import GRPO, OnlineDPO, TRePO
from lit_rl.data.microbatches import MicroBatches, by_length, by_tokens, fewest, groups_together, packed, pieces
from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Stride
from lit_rl.policy import CausalPolicy


@pytest.fixture(scope="module")
def rollouts(policy):
    return forked(policy)


def test_the_tokens_of_an_environment_are_read_where_a_chosen_one_comes_after(rollouts):
    between = spoken_between(rollouts, 420)
    for tokens in (100, 10**4):
        for size, rows in pieces(between, tokens):
            assert size == distinct_tokens(between, rows)


@pytest.mark.parametrize("tokens", [1, 40, 70, 10**4])
def test_pieces_are_groups_or_as_much_of_them_as_fits(rollouts, tokens):
    parts = pieces(rollouts, tokens)
    assert sorted(row for _, rows in parts for row in rows) == list(range(len(rollouts)))
    for size, rows in parts:
        assert size == distinct_tokens(rollouts, rows) and (size <= tokens or len(rows) == 1)
        assert len({int(rollouts.group[row]) for row in rows}) == 1
    whole = [distinct_tokens(rollouts, (rollouts.group == group).nonzero().flatten().tolist()) for group in (0, 1)]
    assert (len(parts) == 2) == (max(whole) <= tokens)


def test_a_schedule_has_every_row_once_a_pass_and_no_more_tokens_than_asked_for(rollouts):
    parts = pieces(rollouts, 70)
    count = fewest(parts, 70, 2)
    assert count % 2 == 0 and max(size for size, _ in packed(parts, count)) <= 70
    assert count == 2 or max(size for size, _ in packed(parts, count - 2)) > 70
    for more in (0, 20):  # as another rank may need
        schedule = by_tokens(parts, count + more, 3, np.random.default_rng(0))
        assert len(schedule) == 3 * (count + more)
        for one_pass in range(3):
            numbers = torch.cat(schedule[one_pass * (count + more) :][: count + more])
            assert numbers[numbers >= 0].sort().values.tolist() == list(range(len(rollouts)))
        weights = torch.zeros(len(rollouts))  # of each row, in the mean over micro-batches
        for numbers, batch in zip(schedule, MicroBatches(rollouts, schedule, [None] * len(schedule)), strict=True):
            assert batch.mask.any(1).tolist() == (numbers >= 0).tolist()
            weights[numbers[numbers >= 0]] += batch.padded / len(batch) / len(schedule)
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / len(rollouts)))


def test_groups_of_like_lengths_stand_together(policy):
    """No other order of the groups has fewer columns in micro-batches of two groups."""
    prompts = [policy.encode_prompt([{"role": "user", "content": text}]) for text in [*TEXTS, "7*8=", "5-1="]]
    rollouts = sample(policy, prompts, FORKED)
    rollouts.examples = [{}] * len(prompts)
    longest = [9, 20, 11, 24]
    rollouts.lengths = torch.tensor([longest[group] - row % 3 for row, group in enumerate(rollouts.group.tolist())])
    longest = [int(rollouts.lengths[rollouts.group == group].max()) for group in range(4)]
    count = int(rollouts.trained.sum())
    steps = torch.randperm(count, generator=torch.Generator().manual_seed(0)).view(1, -1)
    found = groups_together(steps, by_length(rollouts))[0]
    assert found.sort().values.tolist() == list(range(count))
    order = rollouts.group[rollouts.trained][found].unique_consecutive().tolist()
    assert sorted(order) == [0, 1, 2, 3]

    def columns(groups):
        return max(longest[group] for group in groups[:2]) + max(longest[group] for group in groups[2:])

    assert columns(order) == min(map(columns, permutations(range(4))))


class Gradients(Callback):
    def __init__(self):
        self.found, self.sizes = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.sizes.append(distinct_tokens(batch))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.found.append(torch.cat([p.grad.reshape(-1).clone() for p in pl_module.policy.parameters()]))


@pytest.mark.parametrize("normalizer", ["row_sum", "token_mean"])
@pytest.mark.parametrize("algorithm, settings", [(GRPO, {}), (TRePO, {"cuts": Stride(12), "reuse": True})])
def test_gradients_of_one_step_are_those_of_rows(fit, algorithm, settings, normalizer):
    seen, options = [], {"gradient_clip_val": None}
    for data, steps in (({"rows_per_microbatch": 128}, 1), ({"tokens_per_microbatch": 600}, 8)):
        watch = Gradients()
        sizes = {"prompts_per_iteration": 4, **data}
        trainer = {**options, "accumulate_grad_batches": steps}
        if algorithm is GRPO and steps == 1:
            sizes["rows_per_microbatch"] = 16
        result, *_ = fit(
            algorithm, callbacks=(watch,), data=sizes, trainer=trainer, samples=4, normalizer=normalizer, **settings
        )
        assert result.global_step == 1
        seen.append(watch)
    assert max(seen[1].sizes) <= 600 < max(seen[0].sizes)
    whole, packed = (each.found[0] for each in seen)
    assert float((packed - whole).norm()) < 1e-5 * float(whole.norm())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}, {"lora_rank": 4}], ids=str)
def test_the_ratio_starts_at_one_by_tokens_too(fit, settings, precision):
    """Whatever the rows are that stand beside each other, they do so in preparing as well."""
    ratios = []

    class Watched(GRPO):
        def loss(self, minibatch, logprobs):
            ratios.append((logprobs - minibatch.old_logprobs).abs().max())
            return super().loss(minibatch, logprobs)

    policy = CausalPolicy("embedded-mid", **settings)
    trainer = {"accumulate_grad_batches": 2, "precision": precision}
    fit(Watched, policy=policy, samples=4, data={"tokens_per_microbatch": 150}, trainer=trainer)
    assert len(ratios) > 2 and max(ratios[:2]) == 0 < max(ratios[2:])


def test_pairs_are_not_packed_by_tokens(fit):
    with pytest.raises(UsageError, match="data.tokens_per_microbatch: the two responses of a pair"):
        fit(OnlineDPO, data={"tokens_per_microbatch": 1000})
