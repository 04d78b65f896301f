"""TRePO in training: continuations, reuse, and the settings that go together."""

import pytest
import torch
from lightning import Callback

from lit_rl.algorithms import RLOO, TRePO
from lit_rl.algorithms.gradients import group_gradients
from lit_rl.callbacks import Credit, GradientVariance
from lit_rl.errors import UsageError
from lit_rl.exact.oracle import ExactAdvantage
from lit_rl.exact.tree import grow
from lit_rl.functional.cuts import Bernoulli, Entropy, Stride
from lit_rl.policy import TabularPolicy, TokenTransformer
from lit_rl.tasks import Bottleneck, KeyToken, Pairwise
from tests.training import train

CUTS = {"cuts": Stride(8), "continuations": 2}


class Seen(Callback):
    """The rows that training takes, and the gradient of the first optimizer step."""

    def __init__(self):
        self.batches, self.gradient, self.groups = [], None, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not self.batches:
            self.groups = torch.stack(list(group_gradients(pl_module, trainer.datamodule.rollouts)))
        self.batches.append(batch)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if self.gradient is None:
            self.gradient = -torch.cat([p.grad.reshape(-1) for p in pl_module.policy.parameters()])


def test_continuations_are_scored_and_counted_but_never_trained_on(fit):
    seen = Seen()
    trainer, _, data = fit(TRePO, callbacks=(seen,), **CUTS)
    rollouts = data.rollouts
    forked = rollouts.origin >= 0
    assert forked.any() and not rollouts.trained[forked].any()
    assert rollouts.rewards.shape == (len(rollouts),)
    taken = torch.cat([batch.origin for batch in seen.batches])
    assert len(taken) == 16 and (taken == -1).all()
    assert trainer.callback_metrics["tokens/generated"] == rollouts.mask.sum()
    assert trainer.callback_metrics["tokens/continued"] == rollouts.mask[forked].sum() > 0
    prompts = rollouts.prompt_mask[~forked][::4].sum()
    assert trainer.callback_metrics["tokens/prefilled"] == prompts + forked.sum() / 2 == rollouts.prefilled


def test_rewards_of_the_samples_alone_are_reported(fit):
    trainer, _, data = fit(TRePO, reuse=True, **CUTS)
    samples = data.rollouts.rewards[data.rollouts.origin < 0]
    assert float(trainer.callback_metrics["train/reward"]) == pytest.approx(float(samples.mean()))


@pytest.mark.parametrize("normalizer", ["row_sum", "token_mean"])
@pytest.mark.parametrize("micro", [8, 32, 48])
def test_reuse_fills_steps_up_without_changing_the_gradient(fit, normalizer, micro):
    """As many optimizer steps as it takes for all rows; in one step the gradient is the mean over groups."""
    seen = Seen()
    options = {"gradient_clip_val": None, "accumulate_grad_batches": 96 // micro}
    data = {"rows_per_microbatch": micro, "prompts_per_iteration": 2}
    trainer, _, module = fit(
        TRePO, callbacks=(seen,), trainer=options, data=data, reuse=True, normalizer=normalizer, **CUTS
    )
    rows = int(module.rollouts.trained.sum())
    assert 16 < rows < 96 and trainer.global_step == 1 and rows == len(module.rollouts)
    own = sum(int(batch.mask.any(1).sum()) for batch in seen.batches)
    assert own == rows and sum(map(len, seen.batches)) == 96
    mean = seen.groups.mean(0)
    assert float((mean - seen.gradient).norm()) < 1e-5 * float(mean.norm())


def test_micro_batches_do_not_change_the_gradient_of_a_reused_iteration(fit):
    gradients = []
    for micro in (12, 48):
        seen = Seen()
        options = {"gradient_clip_val": None, "accumulate_grad_batches": 96 // micro}
        data = {"rows_per_microbatch": micro, "prompts_per_iteration": 2}
        fit(TRePO, callbacks=(seen,), trainer=options, data=data, reuse=True, kl_coefficient=0.1, **CUTS)
        gradients.append(seen.gradient)
    assert float((gradients[0] - gradients[1]).norm()) < 1e-5 * float(gradients[0].norm())


def test_without_cuts_it_is_rloo(fit):
    """Entropy that the policy never has, of nearly all tokens alike, leaves the siblings' baseline alone."""
    (*_, rloo), (*_, trepo) = fit(RLOO), fit(TRePO, cuts=Entropy(5.9))
    assert torch.equal(trepo.rollouts.response_ids, rloo.rollouts.response_ids)
    torch.testing.assert_close(trepo.rollouts.advantages, rloo.rollouts.advantages)


def test_kl_in_the_reward_is_carried_by_continuations(fit):
    """Their return holds the penalty of the inherited tokens as well as of their own."""
    _, algorithm, data = fit(TRePO, iterations=2, kl_coefficient=0.5, learning_rate=5e-3, warmup_steps=0, **CUTS)
    rollouts = data.rollouts
    returns = algorithm.returns(rollouts)
    forked = (rollouts.origin >= 0).nonzero().squeeze(1)
    assert rollouts.token_rewards[rollouts.origin[forked]].abs().sum() > 0
    for row in forked.tolist():
        origin, cut = int(rollouts.origin[row]), int(rollouts.cut[row])
        whole = rollouts.token_rewards[origin, :cut].sum() + rollouts.token_rewards[row, cut:].sum()
        torch.testing.assert_close(returns[row], rollouts.rewards[row] + whole)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"continuations": 0}, "model.continuations is 0"),
        ({"samples": 1}, "model.samples is 1, but model.root siblings"),
        ({"fill": "all_positions"}, "model.fill all_positions .* model.cuts Stride and model.cuts.every 1"),
        ({"fill": "masked_advantage"}, "model.fill masked_advantage .* model.cuts Bernoulli"),
        ({"mix": 0.5}, "model.mix is 0.5, but only model.fill mix uses it, not segment_td"),
        ({"reuse": True, "kl_coefficient": 0.1, "kl": "k2_loss"}, "model.kl k2_loss .* set model.kl k1_reward"),
    ],
)
def test_settings_that_do_not_go_together(policy, settings, message):
    with pytest.raises(UsageError, match=message):
        TRePO(policy=policy, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"cuts": Bernoulli(0.5), "fill": "masked_advantage"},
        {"cuts": Entropy(0.5), "fill": "hold_mc"},
        {"cuts": Stride(8), "root": "continuations", "samples": 1},
        {"cuts": Bernoulli(0.05), "reuse": True},
    ],
)
def test_variants_train(fit, settings):
    _, algorithm, data = fit(TRePO, iterations=1, data={"rows_per_microbatch": 4}, continuations=2, **settings)
    assert data.rollouts.advantages.isfinite().all() and data.rollouts.advantages.abs().sum() > 0


# ---- position tasks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm, settings", [(RLOO, {}), (TRePO, {"cuts": Stride(2), "reuse": True})])
@pytest.mark.parametrize("task", [KeyToken(3, 4, position=2), Pairwise(3, 4, eos=True)], ids=["key", "pairs"])
def test_position_tasks_are_learned(algorithm, settings, task):
    metrics = train(algorithm, task, 25, **settings)
    assert float(metrics["train/reward"]) > 0.9


def test_credit_is_measured_against_the_tree_and_changes_nothing():
    task = KeyToken(3, 4, position=2)
    with_ = train(RLOO, task, 3, callbacks=(Credit(1), GradientVariance(1)))
    without = train(RLOO, task, 3)
    assert all(with_[name] == without[name] for name in ("train/reward", "policy/entropy", "tokens/generated"))
    shares = [float(with_[f"credit/share/{t}"]) for t in range(4)]
    exact = [float(with_[f"credit/exact/{t}"]) for t in range(4)]
    assert sum(shares) == pytest.approx(1) and sum(exact) == pytest.approx(1)
    assert max(exact) == exact[2] > 0.95 and max(shares) == shares[2]
    assert float(with_["credit/correlation/2"]) > 0.5 and float(with_["credit/slope/2"]) > 0.5
    assert "credit/correlation/3" not in with_  # behind the key token no advantage has spread


def test_credit_refuses_a_task_without_a_tree(fit):
    with pytest.raises(UsageError, match="credit.every_n_iterations"):
        fit(RLOO, callbacks=(Credit(1),))
    with pytest.raises(UsageError, match="credit.every_n_iterations is -1"):
        Credit(-1)
    with pytest.raises(UsageError, match="model.policy has 3 tokens and ends at .2., the task has 3 and ends at .."):
        grow(TabularPolicy(3, 4, eos=True), KeyToken(3, 4))


def test_a_table_of_logits_is_a_causal_model_with_a_state_for_every_prefix():
    policy = TabularPolicy(3, 4, spread=1.0)
    assert sum(p.numel() for p in policy.parameters()) == (1 + 3 + 9 + 27) * 3
    assert policy.encode_prompt([{"role": "user", "content": "0"}]) == [0]
    assert policy.decode(torch.tensor([2, 0])) == "2 0"
    with pytest.raises(UsageError, match="model.policy knows the tokens 0 to 2 only"):
        policy.encode_text("How many?")
    with pytest.raises(UsageError, match="model.policy.length is 30: a table for 3 tokens has at most 15"):
        TabularPolicy(3, 30)
    with pytest.raises(UsageError, match="model.policy.heads 5"):
        TokenTransformer(3, 4, heads=5)
    with pytest.raises(UsageError, match="model.policy.vocabulary is 2; choose at least 3"):
        TabularPolicy(2, 4, eos=True)


def test_a_micro_batch_of_fill_ups_alone_is_no_hole_in_the_metrics(fit):
    options, data = {"accumulate_grad_batches": 8}, {"rows_per_microbatch": 1, "prompts_per_iteration": 1}
    trainer, *_ = fit(TRePO, trainer=options, data=data, reuse=True, **CUTS)
    assert torch.stack(list(trainer.callback_metrics.values())).isfinite().all()


def test_a_group_is_measured_in_parts_where_it_is_large(fit):
    _, algorithm, data = fit(TRePO, reuse=True, learning_rate=0.0, **CUTS)
    whole = torch.stack(list(group_gradients(algorithm, data.rollouts)))
    parts = torch.stack(list(group_gradients(algorithm, data.rollouts, most_rows=5)))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_credit_of_all_positions_together_is_that_of_the_enumerated_responses():
    task, kept = Bottleneck(3, 4, positions=[0, 2]), {}

    class Kept(Credit):
        def _exact(self, algorithm, task):
            tree, gradients = super()._exact(algorithm, task)
            kept.update(tree=tree, gradients=gradients, start=grow(algorithm.reference, task))
            return tree, gradients

    found = train(ExactAdvantage, task, 4, callbacks=(Kept(3),), task=task, reference=True)
    tree, gradients, start = kept["tree"], kept["gradients"], kept["start"]
    assert float(found["credit/objective"]) == pytest.approx(float(tree.probability() @ tree.rewards))
    assert float(found["credit/norm_sq"]) == pytest.approx(float(tree.score_gradient(tree.rewards).square().sum()))
    moved = tree.probability() @ (tree.probability() / start.probability()).log()
    assert sum(float(found[f"credit/kl/{t}"]) for t in range(4)) == pytest.approx(float(moved)) and moved > 0
    squares = gradients.square().sum(1)
    for t in (0, 2):  # with exact advantages, an estimate of the whole gradient
        assert float(found[f"credit/recovered/{t}"]) == pytest.approx(1, abs=0.5)
    assert float(found["credit/cosine"]) > 0.8 and float(found["credit/signal"]) == pytest.approx(1, abs=0.5)
    assert {t for t in range(4) if f"credit/recovered/{t}" in found} == {
        t for t in range(4) if squares[t] > 1e-12 * squares.sum()
    }


def test_credit_is_measured_where_every_response_ends_early():
    """Of four tokens, when the policy has learned to stop at once."""
    ends = KeyToken(2 + 1, 4, eos=True, position=0)

    class Ending(TokenTransformer):
        def __init__(self):
            super().__init__(3, 4, eos=True, hidden_size=32, layers=1)
            self.model.lm_head.weight.data.zero_()
            self.model.lm_head.register_forward_hook(lambda _, __, logits: logits + torch.tensor([0.0, 0.0, 50.0]))

    found = train(RLOO, ends, 1, callbacks=(Credit(1),), policy=Ending())
    assert float(found["response/length"]) == 1
    assert [float(found[f"credit/share/{t}"]) for t in range(4)] == [0] * 4
