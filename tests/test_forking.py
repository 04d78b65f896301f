"""Continuations forked from the samples' caches, against full forward passes and the numbers they were drawn with."""

from collections import defaultdict
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from families import CONFIGS, encode, family
from transformers import MistralConfig

from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Bernoulli, Boundary, Entropy, Stride
from lit_rl.policy import CausalPolicy, TabularPolicy, TokenTransformer
from lit_rl.sampling import LocalSampler, SamplingPlan

STREAMS = [(5, 2), (5, 0), (5, 9)]  # of the prompts
SAMPLERS = [LocalSampler(), LocalSampler(batch_rows=4), LocalSampler(batch_rows=1)]
PLAN = SamplingPlan(samples=2, greedy=True, cuts=Stride(3), continuations=2, temperature=0.8, max_new_tokens=11)
ROOT = replace(PLAN, continuations=1, fork_root=True)
RANDOM = replace(PLAN, cuts=Bernoulli(0.3), fork_root=True)
PLANS = {"stride": PLAN, "root": ROOT, "random": RANDOM}
each_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=["all", "four rows", "one row"])


class Setting:
    """A policy whose responses end at many lengths, and three prompts, where it can of different lengths."""

    def __init__(self, name, folder):
        torch.manual_seed(0)
        self.known = {}
        if name == "tabular":
            self.policy, self.prompts = TabularPolicy(vocabulary=4, length=7, eos=True, spread=0.5), [[0]] * 3
            self.policy.model.table.data[:, -1] -= 1  # EOS is rarer
        elif name == "tokens":
            self.policy, self.prompts = TokenTransformer(5, length=24, eos=True), [[0], [1, 2, 3, 0], [3, 2]]
        else:
            self.policy = family(name, folder)
            self.policy.stop_ids = torch.arange(0, 400, 10)
            self.prompts = encode(self.policy, ["Ann has 12 pens. How many?", "Hm?", "12+3="])
        self.longest = 7 if name == "tabular" else PLAN.max_new_tokens

    def sample(self, plan, sampler=SAMPLERS[0], some=slice(None)):
        """Responses to some of the prompts, sampled once a session: a table to be read only."""
        key = plan, sampler, some.start
        if key not in self.known:
            plan = replace(plan, max_new_tokens=self.longest)
            self.known[key] = sampler.sample(self.policy, self.prompts[some], plan, STREAMS[some])
        return self.known[key]


@pytest.fixture(scope="module", params=[*CONFIGS, "tokens", "tabular"])
def setting(request, tmp_path_factory):
    return Setting(request.param, tmp_path_factory.mktemp(request.param))


def response(rollouts, row):
    return rollouts.response_ids[row, : rollouts.lengths[row]].tolist()


def own_rows(rollouts):
    return (rollouts.origin < 0).nonzero().squeeze(1).tolist()


def forked(rollouts):
    """The rows of the continuations by (origin, cut)."""
    rows = defaultdict(list)
    for row, (origin, cut) in enumerate(zip(rollouts.origin.tolist(), rollouts.cut.tolist(), strict=True)):
        if origin >= 0:
            rows[origin, cut].append(row)
    return dict(rows)


def streams(rollouts, plan):
    """The stream of each row, by the sampler's docstring; the continuations of a cut are numbered from 1."""
    names = [(*STREAMS[row // plan.rows], row % plan.rows) for row in own_rows(rollouts)]
    numbered = {row: (*names[o], c, 1 + k) for (o, c), rows in forked(rollouts).items() for k, row in enumerate(rows)}
    return names + [numbered[row] for row in range(len(names), len(rollouts))]


def contents(rollouts):
    """All that was written, by prompt, origin, cut and number, whatever the order and width of the table."""
    rows = {(row,): row for row in own_rows(rollouts)}
    rows |= {(*key, k): row for key, some in forked(rollouts).items() for k, row in enumerate(some)}
    return {
        key: (response(rollouts, row), rollouts.cuts[row].nonzero().squeeze(1).tolist(), bool(rollouts.truncated[row]))
        for key, row in rows.items()
    }


# ---- the table ------------------------------------------------------------------------------------------------------


@each_plan
def test_a_continuation_inherits_its_origins_prefix_and_owns_the_rest(setting, plan):
    rollouts = setting.sample(plan)
    assert (rollouts.origin >= 0).any()
    for (origin, cut), rows in forked(rollouts).items():
        for row in rows:
            length = int(rollouts.lengths[row])
            assert int(rollouts.origin[origin]) == -1 and cut < length
            assert response(rollouts, row)[:cut] == response(rollouts, origin)[:cut]
            assert rollouts.mask[row].nonzero().squeeze(1).tolist() == list(range(cut, length))
            assert rollouts.group[row] == rollouts.group[origin] == origin // plan.rows
            assert rollouts.cuts[row, : cut + 1].tolist() == rollouts.cuts[origin, : cut + 1].tolist()
    for row in range(len(rollouts)):
        prompt = rollouts.prompt_ids[row][rollouts.prompt_mask[row]].tolist()
        stops = torch.isin(torch.tensor(response(rollouts, row)), setting.policy.stop_ids).tolist()
        assert prompt == setting.prompts[rollouts.group[row]]
        assert not any(stops[:-1]) and stops[-1] != bool(rollouts.truncated[row])
    for row in own_rows(rollouts):
        assert rollouts.cut[row] == 0 and rollouts.mask[row].sum() == rollouts.lengths[row]
    assert len(set(rollouts.lengths.tolist())) > 3


@each_plan
def test_every_cut_of_a_sample_has_its_continuations_and_nothing_else_has(setting, plan):
    rollouts = setting.sample(plan)
    cuts = {(row, t) for row in own_rows(rollouts) for t in rollouts.cuts[row].nonzero().squeeze(1).tolist()}
    found = forked(rollouts)
    assert set(found) == cuts and {len(rows) for rows in found.values()} == {plan.continuations}
    samples = [row for row in own_rows(rollouts) if row % plan.rows < plan.samples]
    assert {row for row, t in cuts if t == 0} == (set(samples) if plan.fork_root else set())
    assert {row for row, _ in cuts} <= set(samples)  # never the greedy probe
    assert all(not rollouts.cuts[row, rollouts.lengths[row] :].any() for row in range(len(rollouts)))


def test_stride_cuts_every_row_but_the_greedy_probes_alike(setting):
    rollouts = setting.sample(PLAN)
    for row in range(len(rollouts)):
        greedy = row < 9 and row % 3 == 2
        plain = [] if greedy else list(range(3, int(rollouts.lengths[row]), 3))
        assert rollouts.cuts[row].nonzero().squeeze(1).tolist() == plain


def test_a_plan_without_a_cut_in_reach_forks_nothing(setting):
    rollouts = setting.sample(replace(PLAN, cuts=Stride(50)))
    assert len(rollouts) == 9 and not rollouts.cuts.any()
    assert rollouts.prefilled == sum(map(len, setting.prompts))


@each_plan
def test_continuations_leave_the_samples_alone(setting, plan):
    alone = setting.sample(replace(plan, cuts=None, continuations=0, fork_root=False))
    rollouts = setting.sample(plan)
    assert own_rows(rollouts) == list(range(len(alone))) and alone.cuts is None
    for row in range(len(alone)):
        assert response(rollouts, row) == response(alone, row)
        assert rollouts.trained[row] == alone.trained[row] and rollouts.truncated[row] == alone.truncated[row]
    assert rollouts.prompt_ids[: len(alone)].equal(alone.prompt_ids)


def test_reuse_trains_continuations_and_changes_nothing_else(setting):
    probes, reused = setting.sample(PLAN), setting.sample(replace(PLAN, reuse=True))
    assert not probes.trained[probes.origin >= 0].any() and reused.trained[probes.origin >= 0].all()
    assert torch.equal(probes.trained[probes.origin < 0], reused.trained[probes.origin < 0])
    assert torch.equal(probes.sampled, reused.sampled)
    for name in {f.name for f in fields(probes)} - {"trained"}:
        one, other = getattr(probes, name), getattr(reused, name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


# ---- what is drawn --------------------------------------------------------------------------------------------------


@torch.no_grad()
@each_plan
def test_every_token_is_drawn_from_a_full_forward_pass(setting, plan):
    """Each row's own number lies where the logits of the finished row, without any cache, give its token a place."""
    rollouts = setting.sample(plan)
    logits = setting.policy.logits(rollouts, plan.temperature)
    cumulative = logits.softmax(-1).cumsum(-1)
    for row, name in enumerate(streams(rollouts, plan)):
        greedy = rollouts.origin[row] < 0 and row % plan.rows == plan.samples
        numbers = np.random.default_rng(name).random(setting.longest, np.float32)
        for t in range(int(rollouts.cut[row]), int(rollouts.lengths[row])):
            token = int(rollouts.response_ids[row, t])
            upper, lower = float(cumulative[row, t, token]), float(cumulative[row, t, token - 1]) if token else 0.0
            if greedy:
                assert logits[row, t, token] > logits[row, t].max() - 1e-4
            else:
                assert lower - 1e-4 < numbers[t] < upper + 1e-4


@each_sampler
def test_a_continuation_depends_on_its_own_stream_alone(setting, sampler):
    """The same responses and cuts however rows are batched and compacted, and whatever prompts stand beside them."""
    before = torch.get_rng_state()
    whole = contents(setting.sample(RANDOM))
    assert contents(setting.sample(RANDOM, sampler)) == whole
    part = contents(setting.sample(RANDOM, sampler, slice(1, 3)))
    assert part == {(key[0] - RANDOM.rows, *key[1:]): value for key, value in whole.items() if key[0] >= RANDOM.rows}
    assert torch.equal(before, torch.get_rng_state())


def test_continuations_of_a_cut_differ(setting):
    rollouts = setting.sample(replace(RANDOM, temperature=1.5))
    pairs = [[response(rollouts, row) for row in (origin, *rows)] for (origin, _), rows in forked(rollouts).items()]
    assert sum(a != b and a != c and b != c for a, b, c in pairs) > len(pairs) / 3


@torch.no_grad()
def test_next_tokens_have_the_policys_frequencies():
    """8,000 continuations: within 4 standard errors of the softmax of every prefix, whatever the origin went on with.

    Nor does it matter what the sibling forked beside it goes on with.
    """
    torch.manual_seed(0)
    policy = TabularPolicy(vocabulary=3, length=3, spread=1.0)
    plan = SamplingPlan(samples=1000, cuts=Stride(1), continuations=4, max_new_tokens=3)
    rollouts = LocalSampler(batch_rows=2000).sample(policy, [[0]], plan, [(1,)])
    found = forked(rollouts)
    assert len(rollouts) == 9000 and len(found) == 2000
    p = policy.logits(rollouts, 1.0).softmax(-1)
    counts, exact = defaultdict(lambda: torch.zeros(3)), {}
    for (origin, cut), rows in found.items():
        went_on = [int(rollouts.response_ids[row, cut]) for row in (origin, *rows)]
        prefix = tuple(response(rollouts, origin)[:cut])
        exact[prefix] = p[rows[0], cut]
        for k in range(1, 5):
            for other in ("any", f"origin {went_on[0]}", f"sibling {went_on[k % 4 + 1]}"):
                counts[prefix, other][went_on[k]] += 1
    counts = {key: count for key, count in counts.items() if count.sum() >= 30}
    assert len(exact) == 3 + 9 and len(counts) > 60
    for (prefix, _), count in counts.items():
        n, q = count.sum(), exact[prefix]
        error = (q * (1 - q) / n).sqrt().clamp(min=1 / float(n))
        assert ((count / n - q).abs() < 4 * error).all()


# ---- where it is cut ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.1, 0.6])
def test_bernoulli_cuts_with_its_probability_whatever_the_tokens(probability):
    """Within 4 standard errors, by position and token there, of samples and of continuations behind their cut."""
    torch.manual_seed(0)
    policy = TabularPolicy(vocabulary=3, length=5, spread=0.5)
    plan = SamplingPlan(samples=800, cuts=Bernoulli(probability), continuations=1, max_new_tokens=5)
    rollouts = LocalSampler(batch_rows=2000).sample(policy, [[0]], plan, [(1,)])
    assert not rollouts.cuts[:, 0].any()
    t, is_fork = torch.arange(5), (rollouts.origin >= 0)[:, None]
    free = t > torch.where(is_fork, rollouts.cut[:, None], 0)
    for position in range(1, 5):
        for token in range(3):
            at = (rollouts.response_ids == token) & (t == position) & free
            for rows in (at & ~is_fork, at & is_fork):
                n = int(rows.sum())
                if n:
                    error = (probability * (1 - probability) / n) ** 0.5
                    assert abs(float(rollouts.cuts[rows].double().mean()) - probability) < 4 * error


@torch.no_grad()
def test_entropy_cuts_where_a_full_forward_pass_is_undecided(setting):
    """Samples everywhere and continuations behind their cut, above the median of the entropies met."""
    policy = setting.policy
    plan = replace(PLAN, samples=6, greedy=False)
    blank = setting.sample(replace(plan, cuts=None, continuations=0))
    met = policy.logprobs_and_entropy(blank, PLAN.temperature)[1][blank.mask]
    rule = Entropy(float(met.median()) + 1e-3)
    rollouts = setting.sample(replace(plan, cuts=rule))
    entropy = policy.logprobs_and_entropy(rollouts, PLAN.temperature)[1]
    t = torch.arange(entropy.shape[1])
    free = rollouts.mask & (t > torch.where(rollouts.origin >= 0, rollouts.cut, 0)[:, None])
    clear = free & ((entropy - rule.threshold).abs() > 1e-4)
    assert torch.equal(rollouts.cuts[clear], entropy[clear] > rule.threshold)
    assert 0.1 < float(rollouts.cuts[clear].double().mean()) < 0.9 and clear.sum() > 0.8 * free.sum()


def test_boundary_cuts_behind_its_tokens(setting):
    tokens = (1,) if isinstance(setting.policy, TabularPolicy | TokenTransformer) else tuple(range(0, 400, 3))
    rollouts = setting.sample(replace(PLAN, cuts=Boundary(tokens), greedy=False))
    for row in range(len(rollouts)):
        behind = [t + 1 for t, token in enumerate(response(rollouts, row)[:-1]) if token in tokens]
        assert rollouts.cuts[row].nonzero().squeeze(1).tolist() == behind
    assert (rollouts.origin >= 0).any()


# ---- what it costs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_rows", [512, 4])
def test_no_prefix_is_fed_again(setting, batch_rows):
    """Prompts are fed once, and of a prefix its last token; all else is what has just been sampled, ends left out."""
    fed = []

    def watch(module, args, kwargs):
        rows, columns = kwargs["input_ids"].shape
        fed.append((columns, int(kwargs["attention_mask"].sum()) if columns > 1 else rows))

    handle = setting.policy.model.register_forward_pre_hook(watch, with_kwargs=True)
    rollouts = setting.sample(RANDOM, LocalSampler(batch_rows))
    handle.remove()
    prompts, prefixes = sum(map(len, setting.prompts)), forked(rollouts)
    assert rollouts.prefilled == prompts + len(prefixes)
    assert sum(tokens for _, tokens in fed) == rollouts.prefilled + int((rollouts.mask.sum(1) - 1).sum())
    assert sum(tokens for columns, tokens in fed if columns > 1) <= prompts
    assert len(prefixes) < sum(cut for _, cut in prefixes) * RANDOM.continuations


@pytest.mark.parametrize("window", [8, 20])
def test_a_cache_that_forgets_is_refused(tmp_path, policy, window):
    """A sliding window shorter than the response, or than response and gaps: prefixes of 4 tokens beside 12."""
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    MistralConfig(vocab_size=400, num_key_value_heads=2, sliding_window=window, **small).save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    sliding = CausalPolicy(str(tmp_path), weights="random")
    prompts, plan = [[5, 6, 7, 9], [8]], replace(PLAN, max_new_tokens=16)
    LocalSampler().sample(sliding, prompts, replace(plan, continuations=0), STREAMS[:2])
    with pytest.raises(UsageError, match="sliding window"):
        LocalSampler().sample(sliding, prompts, plan, STREAMS[:2])
