"""Dynamic sampling replaces prompts without spread and nothing else, and counts all tokens; long responses pay."""

import time
from functools import partial

import pytest
import torch
from datasets import Dataset
from turns import T, V, rows, two_turns

from lit_rl.algorithms import (
    CISPO,
    GRPO,
    GSPO,
    P3O,
    PPO,
    REINFORCE,
    RLOO,
    RLZVP,
    OnlineDPO,
    OptimalBaseline,
    REINFORCEPlusPlus,
    ReMax,
    Supervised,
)
from lit_rl.callbacks import RewardCallback
from lit_rl.callbacks.reward import HINTED, overlong_penalty
from lit_rl.data.resampling import HINT, check_plan, flat_groups, hinted, rows_of, unsolved_groups, with_groups
from lit_rl.errors import UsageError
from lit_rl.policy import TabularPolicy
from lit_rl.rollouts import Rollouts, pad_left, response_mask
from lit_rl.sampling import LocalSampler
from lit_rl.tasks import Arithmetic, GSM8KStyle, KeyToken


def table(groups, rewards, width, prompt, value):
    """Two responses of ``width`` tokens to each prompt of ``prompt`` tokens."""
    n = 2 * groups
    ids, mask = pad_left([[value] * prompt] * n, 0)
    return Rollouts(
        prompt_ids=ids,
        prompt_mask=mask,
        response_ids=torch.full((n, width), value),
        lengths=torch.full((n,), width),
        mask=response_mask(torch.full((n,), width), width),
        group=torch.arange(groups).repeat_interleave(2),
        origin=torch.full((n,), -1),
        cut=torch.zeros(n, dtype=torch.long),
        trained=torch.ones(n, dtype=torch.bool),
        truncated=torch.zeros(n, dtype=torch.bool),
        examples=[{"number": value + i} for i in range(groups)],
        prefilled=prompt,
        held=3 * value,
        rewards=torch.tensor(rewards),
    )


@pytest.mark.parametrize("width, prompt", [(2, 3), (5, 2)])
def test_groups_take_the_places_of_others_whatever_their_widths(width, prompt):
    old = table(3, [1.0, 1.0, 0.0, 1.0, 0.0, 0.0], 3, 2, 7)
    assert flat_groups(old, RLOO) == [0, 2] and rows_of(old, [0, 2]).tolist() == [0, 1, 4, 5]
    merged = with_groups(old, [0, 2], table(2, [1.0, 0.0, 0.0, 0.0], width, prompt, 20))
    assert flat_groups(merged, RLOO) == [2] and merged.rewards.tolist() == [1, 0, 0, 1, 0, 0]
    assert [example["number"] for example in merged.examples] == [20, 8, 21]
    assert torch.equal(merged.group, old.group) and torch.equal(merged.row, old.row)
    assert merged.prefilled == old.prefilled + prompt and merged.held == 3 * 7 + 3 * 20
    for row, (value, responded, asked) in enumerate(
        [(20, width, prompt)] * 2 + [(7, 3, 2)] * 2 + [(20, width, prompt)] * 2
    ):
        assert merged.response_ids[row][merged.mask[row]].tolist() == [value] * responded
        assert merged.prompt_ids[row][merged.prompt_mask[row]].tolist() == [value] * asked
        assert merged.prompt_mask[row, -1] and int(merged.lengths[row]) == responded


def test_prompts_without_spread_are_replaced_and_their_tokens_counted(fit):
    runs = {}
    for tries in (0, 1, 6):
        data = {"prompts_per_iteration": 16, "rows_per_microbatch": 32, "resample": tries}
        _, _, module = fit(RLOO, data=data, samples=2, max_new_tokens=24)
        runs[tries] = module
    first = runs[0].rollouts
    flat = flat_groups(first, RLOO)
    assert len(flat_groups(runs[6].rollouts, RLOO)) < len(flat_groups(runs[1].rollouts, RLOO)) < len(flat)
    kept = [row for row in range(len(first)) if int(first.group[row]) not in flat]
    for module in (runs[1], runs[6]):
        for row in kept:
            n = int(first.lengths[row])
            assert torch.equal(module.rollouts.response_ids[row, :n], first.response_ids[row, :n])
            assert module.rollouts.rewards[row] == first.rewards[row]
    once = int(runs[1].rollouts.mask.sum()) + int(first.mask[rows_of(first, flat)].sum())
    assert runs[0].generated == int(first.mask.sum()) and runs[1].generated == once < runs[6].generated


@pytest.mark.parametrize("settings", [{"resample": 1}, {"hints": 1}, {"resample": 1, "hints": 1}])
def test_sampling_again_needs_samples_and_one_reason(fit, settings):
    with pytest.raises(UsageError, match=rf"data\.{next(iter(settings))}"):
        fit(Supervised, data=settings)


GROUPED = partial(REINFORCEPlusPlus, samples=2, group_baseline=True)


@pytest.mark.parametrize(
    ("make", "nothing"),
    [
        *((make, True) for make in (RLOO, P3O, OptimalBaseline, GRPO, GSPO, CISPO, OnlineDPO, GROUPED)),
        *((make, False) for make in (REINFORCE, ReMax, PPO, RLZVP, REINFORCEPlusPlus)),
    ],
)
def test_only_what_teaches_nothing_is_replaced(make, nothing, fit):
    """Two prompts whose responses all earn 0, or all 1, and a greedy response that earns something else."""
    algorithm = make(policy=TabularPolicy(V, T), max_new_tokens=T)
    rollouts = LocalSampler().sample(algorithm.policy, [[0], [0]], algorithm.plan, [(0, 0), (0, 1)])
    rollouts.rewards = torch.where(rollouts.trained, rollouts.group.float(), 0.5)
    algorithm.prepare(rollouts, 8)
    assert algorithm.needs_spread == nothing == (not rollouts.advantages[rollouts.sampled].any())
    if not nothing:
        for name in ("resample", "hints"):
            with pytest.raises(UsageError, match=rf"^data\.{name} replaces .* learns from these; set it to 0"):
                fit(make, data={name: 1})


def test_a_group_whose_turns_earn_differently_teaches_where_turns_are_compared():
    settings = {"policy": TabularPolicy(V, T), "samples": 2, "reference": False}
    whole, turns = GRPO(**settings), GRPO(**settings, rewards="turns")
    assert flat_groups(two_turns(), whole) == [0] and flat_groups(two_turns(), turns) == []
    paid = torch.tensor([[0.0, 0, 0, 0, 1], [1, 0, 1, 0, 1]])  # the same for a turn, of which there are one and three
    more = {"mask": rows("xxxxx", "x.x.x"), "lengths": torch.tensor([5, 5]), "rewards": paid.sum(1)}
    assert flat_groups(two_turns(turn_rewards=paid, **more), turns) == [0]
    assert flat_groups(two_turns(turn_rewards=paid, **more), whole) == []


def test_time_of_scores_that_decide_what_is_sampled_is_time_of_scoring(fit, monkeypatch):
    real, spent = time.perf_counter, []
    monkeypatch.setattr("time.perf_counter", lambda: real() + 1000 * len(spent))

    def score(example, ids, text):
        spent.append(text)
        return 0.0

    for name in ("resample", "hints"):
        spent.clear()
        trainer, _, _ = fit(RLOO, callbacks=(RewardCallback(score),), data={name: 1}, samples=2, max_new_tokens=8)
        assert len(spent) == 2 * 4 * 2
        assert trainer.callback_metrics["time/score"] >= 1000 * len(spent)
        assert 0 < trainer.callback_metrics["time/sample"] < 1000


def test_unsolved_prompts_are_asked_again_with_longer_parts_of_their_demonstrations(fit):
    """Whoever sees two thirds of a demonstration is paid here, and the others by chance."""

    def score(example, ids, text):
        return float(example.get(HINTED, 0) > 0.5 or int(ids.sum()) % 5 == 0)

    runs = []
    for hints in (0, 2):
        data = {"prompts_per_iteration": 16, "rows_per_microbatch": 32, "hints": hints}
        runs.append(fit(RLOO, callbacks=(RewardCallback(score),), data=data, samples=2, max_new_tokens=24))
    (_, _, plain), (trainer, algorithm, helped) = runs
    before, after = plain.rollouts, helped.rollouts
    unsolved = unsolved_groups(before, plain.task)
    shares = [example.get(HINTED, 0) for example in after.examples]
    assert unsolved and {group for group, share in enumerate(shares) if share} <= {*unsolved}
    assert not unsolved_groups(after, plain.task) and any(shares)
    assert trainer.callback_metrics["prompts/hinted"] == pytest.approx(sum(map(bool, shares)) / 16)
    for group, share in enumerate(shares):
        row = 2 * group
        prompt = after.prompt_ids[row][after.prompt_mask[row]].tolist()
        assert prompt == algorithm.policy.encode_prompt(after.examples[group]["prompt"])
        text, asked = (each.examples[group]["prompt"][-1]["content"] for each in (after, before))
        hint = text.removeprefix(asked).removeprefix(f"\n{HINT}\n")
        words = before.examples[group]["demonstration"].split()
        assert hint.split() == words[: int(share * len(words))]
        if share:
            assert before.examples[group]["demonstration"].startswith(hint) and 0 < len(hint.split()) < len(words)
        else:
            assert torch.equal(after.response_ids[row, :2], before.response_ids[row, :2])
    assert helped.generated > int(after.mask.sum())


@pytest.mark.parametrize("limited", ["model", "sampler"])
def test_prompts_whose_hint_is_too_long_stay_as_they_are(fit, task, limited):
    sampler = LocalSampler()

    class Short(RLOO):
        def __init__(self, **settings):
            super().__init__(**settings)
            examples = list(task.prompts("train"))
            plain, helped = (
                sorted(len(self.policy.encode_prompt(each["prompt"])) for each in prompts)
                for prompts in (examples, [hinted(example, 2 / 3) for example in examples])
            )
            self.most = max(plain[-1], helped[len(helped) // 2]) + self.plan.max_new_tokens
            if limited == "model":
                self.policy.model.config.max_position_embeddings = self.most
            else:
                sampler.max_model_len = self.most

    settings = {"callbacks": (RewardCallback(lambda *row: 0.0),), "samples": 2, "max_new_tokens": 8}
    data = {"prompts_per_iteration": 16, "rows_per_microbatch": 32}
    _, algorithm, module = fit(Short, data={**data, "hints": 2, "sampler": sampler}, **settings)
    shares = [example.get(HINTED, 0) for example in module.rollouts.examples]
    assert {2 / 3} < {*shares}  # some could be asked with all of it, and others with less
    (_, _, plain) = fit(RLOO, data=data, **settings)
    for share, example, before in zip(shares, module.rollouts.examples, plain.rollouts.examples, strict=True):
        for each in (1 / 3, 2 / 3):
            tokens = len(algorithm.policy.encode_prompt(hinted(before, each)["prompt"]))
            assert (tokens + 8 <= algorithm.most) == (share >= each)
        assert example == (hinted(before, share) if share else before)


class Told(GSM8KStyle):
    """The problems with other demonstrations, in turn, a column ``hint``, and 0.01 for a wrong answer."""

    def __init__(self, *demonstrations):
        super().__init__(train_size=16, val_size=4, test_size=4)
        self.demonstrations = demonstrations

    def prompts(self, split):
        rows = list(super().prompts(split))
        told = self.demonstrations * len(rows)
        return Dataset.from_list(
            [{**row, "demonstration": text, "hint": "own"} for row, text in zip(rows, told, strict=False)]
        )

    def score(self, example, ids, text):
        return 1.0 if example["hint"] == "right" else 0.01

    def solved(self, scores):
        return (scores >= 1).float()


def test_hints_need_demonstrations_of_which_there_are_parts(task):
    algorithm = RLOO(policy=TabularPolicy(V, T), reference=False)
    for fine in (task, Told("32", "#### 17"), Told(None, "a b")):
        check_plan(algorithm, RewardCallback(), fine, 0, 1)
    for bare in (KeyToken(4, 6), Arithmetic(), Told("\\boxed{17}", "", None)):
        with pytest.raises(UsageError, match=r"data\.hints takes words of demonstrations"):
            check_plan(algorithm, RewardCallback(), bare, 0, 1)


def test_a_hint_is_a_proper_part(fit):
    """A try without a hint changes nothing, and the next one may have one."""
    data = {"task": Told("32", "#### 17"), "hints": 3, "prompts_per_iteration": 16}
    never = RewardCallback(lambda *row: 0.0)
    _, _, module = fit(RLOO, callbacks=(never,), data=data, samples=2, max_new_tokens=8)
    hints = {"32": [None] * 3, "#### 17": [None, "####", "####"], "1 2 3 4": ["1", "1 2", "1 2 3"], "": [None] * 3}
    for told, parts in hints.items():
        for share, part in zip((1 / 4, 1 / 2, 3 / 4), parts, strict=True):
            found = hinted({"prompt": [{"role": "user", "content": "?"}], "demonstration": told}, share)
            assert (found and found["prompt"][0]["content"]) == (part and f"?\n{HINT}\n{part}")
    assert {bool(example.get(HINTED)) for example in module.rollouts.examples} == {False, True}
    for example in module.rollouts.examples:
        assert example.get(HINTED) == (None if example["demonstration"] == "32" else 3 / 4)


def test_what_the_task_does_not_count_as_solved_gets_hints(fit):
    """Neither its pay for wrong answers nor its own column ``hint`` hides that."""
    own, data = Told("1 2"), {"task": Told("1 2"), "hints": 1}
    trainer, _, module = fit(RLOO, callbacks=(RewardCallback(),), data=data)
    assert trainer.callback_metrics["prompts/hinted"] == 1
    assert {example["hint"] for example in module.rollouts.examples} == {"own"}
    assert (module.rollouts.rewards > 0).all() and unsolved_groups(module.rollouts, own) == [0, 1, 2, 3]
    solved = RewardCallback(lambda example, ids, text: 1.0)
    trainer, _, _ = fit(RLOO, callbacks=(solved,), data=data)
    assert trainer.callback_metrics["prompts/hinted"] == 0
    with pytest.raises(UsageError, match=r"^data\.hints asks which responses are right, and reward\.model"):
        fit(RLOO, callbacks=(RewardCallback(model="some-model"),), data=data)


def test_rl_zvp_takes_for_right_what_the_task_counts_as_solved(fit):
    for paid, sign in ((0.01, -1), (1.0, 1)):
        reward = RewardCallback(lambda example, ids, text, paid=paid: paid)
        _, _, module = fit(RLZVP, callbacks=(reward,), data={"task": Told("1 2")})
        assert (sign * module.rollouts.advantages >= 0).all() and module.rollouts.advantages.any()
    for name, settings in (("overlong", {"overlong": 8}), ("model", {"model": "some-model"})):
        with pytest.raises(UsageError, match=rf"^reward\.{name} gives responses .* RLZVP"):
            fit(RLZVP, callbacks=(RewardCallback(**settings),))


def test_long_responses_pay():
    penalty = overlong_penalty(torch.tensor([1, 8, 9, 10, 12]), 12, 4)
    assert penalty.tolist() == [0, 0, 0.25, 0.5, 1]
    with pytest.raises(UsageError, match=r"reward\.overlong is 0"):
        RewardCallback(overlong=0)


def test_the_penalty_is_a_part_of_the_reward(fit):
    shaped = RewardCallback(lambda example, ids, text: 1.0, overlong=8)
    _, _, module = fit(RLOO, callbacks=(shaped,), samples=2, max_new_tokens=24)
    expected = 1 - overlong_penalty(module.rollouts.lengths, 24, 8)
    assert (expected < 1).any()
    torch.testing.assert_close(module.rollouts.rewards, expected)
    with pytest.raises(UsageError, match=r"reward\.overlong is 25, above model\.max_new_tokens"):
        fit(RLOO, callbacks=(RewardCallback(overlong=25),), samples=2, max_new_tokens=24)
