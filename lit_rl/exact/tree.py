"""The tree of all responses to a prompt under a policy: probabilities, values, advantages and gradients, exactly.

Notation beside that of :mod:`lit_rl.rollouts`: ``A`` tokens besides EOS, ``X`` states (prefixes that go on), ``S``
leaves (finished responses), ``D`` parameters. Everything is float64 as far as the model's own code allows.
"""

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from lit_rl.errors import UsageError
from lit_rl.exact.dialogue import Dialogue, spoken_at
from lit_rl.policy.causal import CausalPolicy
from lit_rl.rollouts import Rollouts, response_mask
from lit_rl.tasks.position_credit import PositionTask

MOST_LEAVES = 2**18


@dataclass
class Tree:
    """All responses to a task's prompt. Made by :func:`grow`.

    States are numbered by depth, then in lexicographic order. An edge is a token in a state, numbered state * V +
    token. Where an environment speaks, its probabilities, which have no gradient, stand in the place of the policy's.
    """

    task: PositionTask
    policy: CausalPolicy  # a copy in float64
    temperature: float
    prompt: list[int]
    ids: Tensor  # [S, T] of the leaves, 0 behind the end
    lengths: Tensor  # [S]
    rewards: Tensor  # [S]
    logprobs: Tensor  # [X, V] log pi(. | s)
    reach: Tensor  # [X] the probability of coming through s
    q: Tensor  # [X, V] Q(s, a) = E[r | s, a]
    v: Tensor  # [X] V(s) = E[r | s]

    @property
    def own(self) -> Tensor:
        """True at the policy's tokens of every leaf: [S, T]."""
        there = response_mask(self.lengths, self.ids.shape[1])
        there[:, spoken_at(self.task)] = False
        return there

    @property
    def objective(self) -> Tensor:
        """J = E[r]."""
        return self.v[0]

    @property
    def advantages(self) -> Tensor:
        """Q(s, a) - V(s): [X, V]."""
        return self.q - self.v[:, None]

    @property
    def entropy(self) -> Tensor:
        """Of pi(. | s) in nats: [X]."""
        return torch.special.entr(self.logprobs.exp()).sum(1)

    def probability(self, leaves: Tensor | None = None) -> Tensor:
        """pi(response) of some leaves [N], or of all: [N]."""
        ids, lengths = (self.ids, self.lengths) if leaves is None else (self.ids[leaves], self.lengths[leaves])
        edges = self.edges(ids, lengths)
        return torch.where(edges >= 0, self.logprobs.reshape(-1)[edges.clamp(min=0)], 0.0).sum(1).exp()

    def edges(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The edges along responses [N, T']; -1 after the end."""
        return _edges(self.task, ids, lengths)

    def along(self, table: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """Values of edges [X, V] or of states [X], looked up along responses: [N, T'], 0 after the end."""
        edges = self.edges(ids, lengths)
        where = edges if table.dim() == 2 else edges // self.task.vocabulary
        return torch.where(edges >= 0, table.reshape(-1)[where.clamp(min=0)], 0.0)

    def leaves(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The number of each finished response among the leaves: [N]."""
        last = self.edges(self.ids, self.lengths).gather(1, self.lengths[:, None] - 1).squeeze(1)
        number = torch.full((self.q.numel(),), -1).scatter(0, last, torch.arange(len(last)))
        return number[self.edges(ids, lengths).gather(1, lengths[:, None] - 1).squeeze(1)]

    def resolved(self) -> Tensor:
        """F_t = Var[V(s_t)] / Var[r], the share of the reward's variance that the first t tokens decide: [T + 1].

        The value of a finished response is its reward.
        """
        there = response_mask(self.lengths, self.ids.shape[1])
        values = torch.where(there, self.along(self.v, self.ids, self.lengths), self.rewards[:, None])
        values = torch.cat([values, self.rewards[:, None]], 1)
        spread = self.probability() @ (values - self.objective).square()
        return spread / spread[-1]

    def state_means(self, x: Tensor) -> Tensor:
        """E[x_t | s_t] of numbers along every leaf [S, T]: [X]."""
        edges, p = self.edges(self.ids, self.lengths), self.probability()[:, None]
        there, states = edges >= 0, edges // self.task.vocabulary
        sums = torch.zeros_like(self.v).index_add(0, states[there], (p * x)[there])
        return sums / self.reach

    def gradient(self, weights: Tensor | None = None) -> Tensor:
        """The sum over edges of weight * grad log pi(a | s): [D].

        Args:
            weights: [X, V]; None takes p(s) pi(a | s) A(s, a), whose sum is the gradient of J.
        """
        weights = self.visits * self.advantages if weights is None else weights
        logprobs = _distributions(self.policy, self.task, self.prompt, self.temperature)
        parts = torch.autograd.grad((weights * logprobs).sum(), list(self.policy.parameters()))
        return torch.cat([part.reshape(-1) for part in parts])

    def score_gradient(self, returns: Tensor) -> Tensor:
        """E[sum_t f_t psi_t] for any function f of the response: [D].

        With the rewards as f it is the gradient of J, computed in another way than by :meth:`gradient`.

        Args:
            returns: f of every leaf [S], or of its tokens [S, T].
        """
        edges = self.edges(self.ids, self.lengths)
        there = edges >= 0
        returns = returns if returns.dim() == 2 else returns[:, None].expand(edges.shape)
        weights = (self.probability()[:, None] * returns)[there]
        return self.gradient(torch.zeros_like(self.q).view(-1).index_add(0, edges[there], weights).view_as(self.q))

    def gram(self) -> Tensor:
        """psi_e . psi_f of all edges, with psi = grad log pi(a | s): [E, E]; for small trees."""
        logprobs = _distributions(self.policy, self.task, self.prompt, self.temperature).reshape(-1)
        unit, parameters = torch.eye(len(logprobs), dtype=logprobs.dtype), list(self.policy.parameters())
        parts = torch.autograd.grad(logprobs, parameters, unit, is_grads_batched=True)
        scores = torch.cat([part.reshape(len(logprobs), -1) for part in parts], 1)
        return scores @ scores.T

    @property
    def visits(self) -> Tensor:
        """The probability of taking an edge, p(s) pi(a | s): [X, V]."""
        return self.reach[:, None] * self.logprobs.exp()

    @property
    def depth(self) -> Tensor:
        """Tokens before each state: [X]."""
        counts = torch.tensor([_actions(self.task) ** t for t in range(self.task.length)])
        return torch.arange(self.task.length).repeat_interleave(counts)

    def position_gradients(self) -> Tensor:
        """g_t = E[r psi_t], what position t adds to the gradient of J: [T, D]."""
        levels = _levels(self.policy, self.task, self.prompt, self.temperature)
        weights = (self.visits * self.advantages).split([len(level) for level in levels])
        parameters = list(self.policy.parameters())
        rows: list[Tensor] = []
        for weight, level in zip(weights, levels, strict=True):  # each through the levels above it alone
            if not level.requires_grad:  # an environment's
                rows.append(torch.zeros_like(rows[0]))
                continue
            parts = torch.autograd.grad((weight * level).sum(), parameters, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([part.reshape(-1) for part in parts]))
        return torch.stack(rows)

    def rollouts(self, leaves: Tensor) -> Rollouts:
        """The given leaves [N] with their rewards, as samples of one prompt."""
        n, lengths = len(leaves), self.lengths[leaves]
        ids = self.ids[leaves]
        last = ids.gather(1, lengths[:, None] - 1).squeeze(1)
        own, task = self.own[leaves], self.task
        return Rollouts(
            prompt_ids=torch.tensor([self.prompt]).expand(n, -1),
            prompt_mask=torch.ones(n, len(self.prompt), dtype=torch.bool),
            response_ids=ids,
            lengths=lengths,
            mask=own,
            group=torch.zeros(n, dtype=torch.long),
            origin=torch.full((n,), -1),
            cut=torch.zeros(n, dtype=torch.long),
            trained=torch.ones(n, dtype=torch.bool),
            truncated=last != (-1 if self.task.eos_id is None else self.task.eos_id),
            examples=[self.task.prompts("train")[0]],
            spoken=response_mask(lengths, ids.shape[1]) & ~own if isinstance(task, Dialogue) else None,
            rewards=self.rewards[leaves],
            turn_rewards=task.turn_rewards(ids) if isinstance(task, Dialogue) else None,
        )


def grow(policy: CausalPolicy, task: PositionTask, temperature: float = 1.0) -> Tree:
    """The tree of a task's prompt under a policy.

    Raises:
        UsageError: more than 2^18 responses, or a policy over other tokens than the task's.
    """
    eos = [] if task.eos_id is None else [task.eos_id]
    if policy.model.config.vocab_size != task.vocabulary or policy.stop_ids.tolist() != eos:
        raise UsageError(
            f"model.policy has {policy.model.config.vocab_size} tokens and ends at {policy.stop_ids.tolist()}, the "
            f"task has {task.vocabulary} and ends at {eos}; set model.policy.vocabulary and model.policy.eos alike"
        )
    policy = copy.deepcopy(policy).double().cpu()
    policy.requires_grad_(True)
    prompt = policy.encode_prompt(task.prompts("train")[0]["prompt"])
    ids, lengths = _leaves(task)
    rewards = task.returns(ids, lengths)
    with torch.no_grad():
        logprobs = _distributions(policy, task, prompt, temperature)
    actions, length = _actions(task), task.length
    levels = [slice(o, o + actions**t) for t, o in enumerate(_offsets(actions, length))]
    reach = torch.ones(len(logprobs), dtype=torch.float64)
    for here, below in itertools.pairwise(levels):
        reach[below] = (reach[here, None] * logprobs[here, :actions].exp()).reshape(-1)
    q = torch.zeros_like(logprobs)
    v = torch.zeros_like(reach)
    last = _edges(task, ids, lengths).gather(1, lengths[:, None] - 1).squeeze(1)  # the edges that finish a response
    q.view(-1)[last] = rewards
    for t in reversed(range(length)):
        if t + 1 < length:
            q[levels[t], :actions] = v[levels[t + 1]].reshape(-1, actions)
        v[levels[t]] = (logprobs[levels[t]].exp() * q[levels[t]]).sum(1)
    return Tree(task, policy, temperature, prompt, ids, lengths, rewards, logprobs, reach, q, v)


def _leaves(task: PositionTask) -> tuple[Tensor, Tensor]:
    """All finished responses: ids [S, T] and lengths [S]."""
    actions, length, eos = _actions(task), task.length, task.eos_id
    early = 0 if eos is None else sum(actions**t for t in range(length - 1))
    count = early + actions ** (length - 1) * task.vocabulary
    if count > MOST_LEAVES:
        raise UsageError(
            f"data.task.length is {length}: with {task.vocabulary} tokens that makes {count:,} responses, and at most "
            f"{MOST_LEAVES:,} are enumerated; lower data.task.length or data.task.vocabulary"
        )
    ids, lengths = [], []
    for t in range(length):  # responses that end with the token at t
        prefixes = _words(actions, t)
        last = torch.arange(task.vocabulary) if t + 1 == length else torch.tensor([] if eos is None else [eos])
        rows = torch.cat([prefixes.repeat_interleave(len(last), 0), last.long().repeat(len(prefixes))[:, None]], 1)
        ids.append(torch.nn.functional.pad(rows, (0, length - t - 1)))
        lengths.append(torch.full((len(rows),), t + 1))
    return torch.cat(ids), torch.cat(lengths)


def _distributions(policy: CausalPolicy, task: PositionTask, prompt: list[int], temperature: float) -> Tensor:
    """log pi(. | s) of every state [X, V], differentiable."""
    return torch.cat(_levels(policy, task, prompt, temperature))


def _levels(policy: CausalPolicy, task: PositionTask, prompt: list[int], temperature: float) -> list[Tensor]:
    """The same, the states of each depth apart; each state is fed to the model once."""
    model: Any = policy.model
    cache, ids, levels = DynamicCache(config=model.config), torch.tensor([prompt]), []
    for t in range(task.length):
        position = torch.arange(len(prompt) + t)[-ids.shape[1] :]
        out = model(
            input_ids=ids,
            attention_mask=torch.ones(len(ids), len(prompt) + t, dtype=torch.long),
            position_ids=position.expand_as(ids),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if isinstance(task, Dialogue) and t in task.spoken:
            levels.append(task.answers(_words(_actions(task), t)))
        else:
            levels.append((out.logits[:, -1] / temperature).log_softmax(-1))
        if t + 1 < task.length:
            cache.batch_repeat_interleave(_actions(task))
            ids = torch.arange(_actions(task)).repeat(len(ids))[:, None]
    return levels


def _words(actions: int, length: int) -> Tensor:
    """All words of so many letters, in lexicographic order: [actions^length, length]."""
    place = actions ** torch.arange(length - 1, -1, -1)
    return torch.arange(actions**length)[:, None] // place % actions


def _offsets(actions: int, length: int) -> list[int]:
    """The number of the first state of each depth."""
    return [sum(actions**d for d in range(t)) for t in range(length)]


def _edges(task: PositionTask, ids: Tensor, lengths: Tensor) -> Tensor:
    actions, n = _actions(task), task.vocabulary
    code, offset, columns = torch.zeros_like(lengths), 0, []
    for t in range(ids.shape[1]):
        columns.append((offset + code) * n + ids[:, t])
        offset += actions**t
        code = (code * actions + ids[:, t]).clamp(max=actions ** (t + 1) - 1)
    return torch.stack(columns, 1).masked_fill(~response_mask(lengths, ids.shape[1]), -1)


def _actions(task: PositionTask) -> int:
    return task.vocabulary - (task.eos_id is not None)
