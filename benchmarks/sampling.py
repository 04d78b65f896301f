"""Tokens a second of the sampler, beside transformers' ``generate`` and a forward pass over what was sampled."""

import torch

from benchmarks.measure import SAMPLES, Line, problems, rate, seconds
from lit_rl.functional.cuts import Stride
from lit_rl.policy import CausalPolicy
from lit_rl.policy.reading import whole_inputs
from lit_rl.rollouts import Rollouts, pad_left, response_mask
from lit_rl.sampling import LocalSampler, Sampler, SamplingPlan

ROWS, MOST = 512, 192


class Sampling:
    """The same prompts, weights, temperature and stop rules for all."""

    def __init__(
        self, policy: CausalPolicy, rows: int = ROWS, most: int = MOST, sampler: Sampler | None = None
    ) -> None:
        self.policy, self.most, self.sampler = policy, most, sampler or LocalSampler()
        self.prompts = problems(policy, rows // SAMPLES)[1]
        self.rollouts: Rollouts

    def sample(self, plan: SamplingPlan) -> Rollouts:
        streams = [(i,) for i in range(len(self.prompts))]
        return self.sampler.sample(self.policy, self.prompts, plan, streams)

    def ours(self) -> float:
        def work() -> None:
            self.rollouts = self.sample(SamplingPlan(samples=SAMPLES, max_new_tokens=self.most))

        spent = seconds(work)
        return int(self.rollouts.mask.sum()) / spent

    @torch.no_grad()
    def generate(self) -> float:
        ids, mask = (x.to(self.policy.device) for x in pad_left(self.prompts, self.policy.pad_id))
        found = {}

        def work() -> None:
            found["ids"] = self.policy.model.generate(
                ids.repeat_interleave(SAMPLES, 0),
                attention_mask=mask.long().repeat_interleave(SAMPLES, 0),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=self.most,
                pad_token_id=self.policy.pad_id,
            )

        spent = seconds(work)
        stops = torch.isin(found["ids"][:, ids.shape[1] :], self.policy.stop_ids)
        return int((stops.long().cumsum(1) - stops.long() == 0).sum()) / spent

    @torch.no_grad()
    def forward(self) -> float:
        """transformers' forward pass over the prompts and responses of the last :meth:`ours`, each row whole."""
        parts = [whole_inputs(self.rollouts.select(some)) for some in torch.arange(len(self.rollouts)).split(64)]
        return int(self.rollouts.mask.sum()) / seconds(lambda: [self.policy.model(**part) for part in parts])

    def continuations(self) -> tuple[float, float]:
        """Tokens a second of TRePO's continuations, what lies between a decoded batch and their end, and of samples."""
        plan = SamplingPlan(samples=SAMPLES, max_new_tokens=self.most)
        forked = SamplingPlan(samples=SAMPLES, max_new_tokens=self.most, cuts=Stride(8), continuations=2)
        tables: list[Rollouts] = []
        alone = seconds(lambda: tables.append(self.sample(plan)))
        whole = seconds(lambda: tables.append(self.sample(forked)))
        mine = int(tables[0].mask.sum())
        again = tables[1].prefilled - sum(map(len, self.prompts))
        prefix = tables[1].select(tables[1].origin >= 0)
        fed = int((response_mask(prefix.cut, self.most).sum() + prefix.prompt_mask.sum()) / 2)
        self.fed_again = again, fed
        return (int(tables[1].mask.sum()) - mine) / (whole - alone), mine / alone


def sampling(
    policy: CausalPolicy, label: str, asked: float, rows: int = ROWS, most: int = MOST, rounds: int = 7
) -> list[Line]:
    """``asked`` is how many times the tokens a second of ``generate``."""
    work = Sampling(policy, rows, most)
    pairs: list[tuple[float, float]] = []

    def forks() -> float:
        pairs.append(work.continuations())
        return pairs[-1][0]

    lines = [
        rate(f"sampling, {label}: transformers.generate", asked, work.ours, work.generate, rounds),
        rate(f"sampling, {label}: transformers' teacher-forced forward", 0.5, work.ours, work.forward, rounds),
        rate(f"TRePO's continuations, {label}: sampling of its responses", 1.0, forks, lambda: pairs[-1][1], rounds),
    ]
    again, fed = work.fed_again
    # the last token of each prefix, a step of decoding, for the logits behind it
    lines.append(
        Line(f"prefix tokens that TRePO reads again, {label}: all of them", again, fed, "tokens", fed / again, 1.0)
    )
    return lines
