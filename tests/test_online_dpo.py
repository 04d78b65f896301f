"""Online DPO: pairs are chosen by reward, never part, and weigh nothing when tied."""

import pytest
import torch
from lightning import Callback
from torch.nn.functional import binary_cross_entropy_with_logits

from lit_rl.algorithms import OnlineDPO
from lit_rl.algorithms.gradients import group_gradients
from lit_rl.callbacks import Diagnostics
from lit_rl.errors import UsageError
from lit_rl.exact.certificate import Claim, certify
from lit_rl.exact.formulas import preference
from lit_rl.exact.learned import at_reference
from lit_rl.functional.preferences import best_and_worst, dpo_loss
from lit_rl.tasks import Additive


def test_best_and_worst_differ_and_are_the_first_and_the_last_of_their_kind():
    rewards = torch.tensor([[0.0, 1.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0], [3.0, 1.0, 2.0, 4.0]])
    best, worst = best_and_worst(rewards)
    assert best.tolist() == [1, 0, 3] and worst.tolist() == [3, 3, 1]


def test_loss_is_the_cross_entropy_of_the_margin_over_the_pairs_that_count():
    torch.manual_seed(0)
    ratios, signs = torch.randn(8), torch.tensor([1.0, -1.0, -1.0, 1.0, 0.0, 0.0, 1.0, -1.0])
    margins = torch.stack([ratios[0] - ratios[1], ratios[3] - ratios[2], ratios[6] - ratios[7]])
    expected = binary_cross_entropy_with_logits(0.3 * margins, torch.ones(3)) * 3 / 4
    assert float(dpo_loss(ratios, signs, 0.3)) == pytest.approx(float(expected))


class Batches(Callback):
    def __init__(self):
        self.batches, self.samples = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch)
        if batch_idx == 0:
            self.samples.append(trainer.datamodule.rollouts)


@pytest.mark.parametrize("passes", [1, 2])
def test_pairs_never_part_and_are_the_best_and_the_worst(fit, passes):
    seen = Batches()
    data = {"prompts_per_iteration": 8, "rows_per_microbatch": 4}
    _, _, module = fit(OnlineDPO, callbacks=(seen,), data=data, samples=4, passes=passes)
    rollouts = module.rollouts
    assert len(seen.batches) == 4 * passes and rollouts.trained.sum() == 16 and rollouts.sampled.all()
    for batch in seen.batches:
        assert (batch.group[::2] == batch.group[1::2]).all()
        for one, other, group in zip(batch.rewards[::2], batch.rewards[1::2], batch.group[::2], strict=True):
            rewards = rollouts.rewards[rollouts.group == group]
            assert {float(one), float(other)} == {float(rewards.max()), float(rewards.min())}
    first = torch.cat([batch.group for batch in seen.batches[:4]])
    assert sorted(first.tolist()) == sorted([*range(8)] * 2)


def test_ties_are_counted_and_change_nothing(fit):
    trainer, algorithm, data = fit(OnlineDPO, samples=2, learning_rate=0.0)
    rollouts = data.rollouts
    rollouts.rewards = torch.ones(8)
    algorithm.prepare(rollouts, 8)
    assert (rollouts.advantages == 0).all() and rollouts.trained.all()
    assert all((gradient == 0).all() for gradient in group_gradients(algorithm, rollouts))
    assert float(algorithm._describe(rollouts)["pairs/tied"]) == 1


def test_offline_the_reference_is_asked(fit):
    """However far the policy has moved, the responses are those that its start gives."""
    seen = Batches()
    _, algorithm, data = fit(OnlineDPO, iterations=3, callbacks=(seen,), sampling="reference", learning_rate=3e-2)
    last = seen.samples[-1]
    streams = [(0, draw) for draw in range(8, 12)]  # of the third iteration of four prompts
    [reference] = algorithm._reference
    again = data.sample(reference, algorithm.plan, last.examples, streams)
    moved = data.sample(algorithm.policy, algorithm.plan, last.examples, streams)
    assert torch.equal(again.response_ids, last.response_ids)
    assert again.response_ids.shape != moved.response_ids.shape or (again.response_ids != moved.response_ids).any()


def test_offline_nothing_is_said_of_a_policy_that_did_not_sample(fit):
    names = {}
    for sampling in ("policy", "reference"):
        trainer, _, _ = fit(OnlineDPO, callbacks=(Diagnostics(),), sampling=sampling)
        names[sampling] = set(trainer.callback_metrics)
    told = {"policy/kl", "policy/entropy", "diagnostic/entropy_ratio", "diagnostic/length_ratio", "diagnostic/distinct"}
    assert told <= names["policy"] and not told & names["reference"]
    assert "diagnostic/group_error" not in names["policy"]  # a pair is no baseline


def test_a_pair_of_the_wrong_responses_is_caught():
    """Best against a middling one is not what the formula says."""

    class SecondBest(OnlineDPO):
        def prepare(self, rollouts, rows):
            rewards = rollouts.rewards.view(-1, self.plan.samples)
            rollouts.rewards = torch.where(rewards == rewards.amin(1, keepdim=True), 0.5, rewards).view(-1)
            super().prepare(rollouts, rows)

    def build(**kwargs):
        return SecondBest(samples=3, beta=0.3, **kwargs)

    task = Additive(2, 3)
    assert certify(Claim("right", at_reference(lambda **k: OnlineDPO(3, 0.3, **k)), task, preference(3, 0.3))).holds
    assert not certify(Claim("wrong", at_reference(build), task, preference(3, 0.3))).holds


def test_settings_that_make_no_sense_are_refused(fit, policy):
    for settings, message in (
        ({"samples": 1}, "model.samples is 1"),
        ({"beta": 0.0}, "model.beta is 0.0"),
        ({"reference": False}, "model.reference"),
        ({"kl_coefficient": 0.1}, "model.kl_coefficient"),
        ({"clip_high": 0.2}, "model.clip_high"),
    ):
        with pytest.raises(UsageError, match=message):
            OnlineDPO(policy=policy, **settings)
    with pytest.raises(UsageError, match="data.rows_per_microbatch is 1"):
        fit(OnlineDPO, data={"rows_per_microbatch": 1})
