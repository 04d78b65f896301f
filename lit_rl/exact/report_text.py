"""The words of the certificate's report: its first page, how it is measured, and what each expectation means."""

FIRST_PAGE = """# The certificate

**Question.** A policy-gradient method should follow the gradient of J = E[r], the expected reward of a response. Which
estimators have exactly this gradient as their expectation, and what do the others estimate?

**Answer.** REINFORCE, RLOO, ReMax, P3O, OptimalBaseline, PPO with lambda = 1 and TRePO with its default settings are
unbiased: their expected gradient equals the exact gradient up to rounding. GRPO, GSPO, CISPO, RL-ZVP, REINFORCE++,
OnlineDPO, RTO and ABC follow the gradient of another objective by default; for most of them the table gives its
formula. TRePO with linearly interpolated advantages teaches the interpolated tokens nothing: their expected update is 0
where all responses have the same length.

{table}

Each row is one algorithm on one small task. **Bias** is |G - g| / |g|, where G is the expected gradient of the
estimator and g is the exact gradient of J. A **cosine** (of G and g) of 1 with a bias means that the gradient is only
rescaled. **Tokens** are those sampled for one prompt. **Relative variance** is the trace of the covariance of one
prompt's gradient, divided by |G|^2. Rows with different numbers of tokens do not compare the noise of estimators.

{verdict}

Made by `python -m lit_rl verify --report {folder}`; all numbers: [certificate.json](certificate.json).
"""

METHOD = """## How it is measured

On a small task, every set of responses that an estimator can draw for a prompt is enumerated. This includes greedy
responses and the continuations of prefixes. Each set passes through the algorithm's own `prepare` and `loss`, the code
that trains, and counts with its probability. The sum is the expected gradient G. It is compared with the gradient of
the enumerated tree of responses, in float64.

- A row with a formula passes if |G - formula| < 1e-9 |g|.
- A row with a standard error (se) has too many outcomes to enumerate. G is then the mean of {samples:,} sampled groups,
  and the row passes within 4 standard errors.
- A row with "no closed form" passes if its bias is above 1e-6, or above 4 standard errors.

**Tasks.** V is the number of tokens in the vocabulary and T the largest number of tokens in a response. EOS: the last
token of the vocabulary ends the response, so that lengths vary.

**Turns.** In TwoTurns the policy writes a token, an environment answers with a random one, and the policy writes two
more. The environment's token counts in T, and is neither trained on nor counted among the tokens sampled. `turns` cuts
where the policy speaks again. What is *paid at turns* is compared or placed turn by turn.

**Policy.** A table of random logits, where the row does not name another policy.

**TRePO.** It estimates the values of some prefixes of each response. Where such a prefix ends is a *cut*. A rule
(`fill`) makes the advantages of the tokens between two cuts from the values there. By default here, G = 2 responses are
sampled to a prompt and K = 1 continuation to a cut. There is a cut before every second token (the 1st, the 3rd, ...).
The value of the prompt is the reward of the other response; with G = 1 it comes from a continuation of the prompt.
Other cuts: `Bernoulli`, each with probability 1/2; `entropy`, where the policy's entropy is above 0.95 nats;
`boundary`, behind token 0; `relative`, at half of the finished response. With `reuse` the continuations are trained on,
too. In a table the scores of different states are orthogonal; therefore `segment_td` and `hold_mc` have the same noise
at K = 1. In a transformer they do not.

**Learned models** are random here, so that no result depends on their quality. PPO's critic has values from
N(0, 1/4), fixed before sampling, or the exact values V where the row says so. RTO's DPO policy is random and its
reference is uniform. The attention of ABC's random reward model is alpha. OnlineDPO is judged where the policy equals
its reference; it trains on the best and the worst of G responses. DAPO's and CISPO's losses are those of a step on
one prompt, and REINFORCE++'s mean and deviation those of one prompt's G responses: an iteration of G responses.

**Second step.** The responses come from earlier weights: the logits plus noise from N(0, 1/4). Importance ratios then
differ from 1. Ranges of clipping are 0.1 below and 0.4 above.
"""

INTERPOLATION = """## What interpolation does to TRePO

TRePO (2506.02553) estimates values at some prefixes, and interpolates between the tokens whose advantages are thereby
exact (`linear_advantage`). The paper's text can be read in other ways; the table has one row for each. Let g_t = E[r
psi_t] be the part of the exact gradient that belongs to position t. The table shows which share of g_t each rule keeps
on {task}, where all responses have the same length. Cuts are before tokens 1 and 3; random cuts are before each later
token with probability 1/2. A share of 1 is unbiased.

{table}

**Interpolated advantages.** An interpolated advantage is a mixture of two exact ones. The earlier one is fixed before
token t is chosen, so it acts as a baseline without a reward. The later one has the mean 0 whatever was chosen at t.
Hence **interpolated tokens learn nothing**: their expected update is 0, and they only add noise. With random cuts a
position keeps the probability that its advantage is exact, which takes a cut before and a cut behind it (for the last
token: before it). With cuts before tokens 1 and 3 of four no token is exact, and there is no update at all. If the
lengths of responses vary, the weights of the mixture depend on the end of the response; interpolated tokens then get
some update, but of the wrong direction and size.

**Interpolated values.** `linear_value_mc` keeps 1 - alpha_t of g_t and `linear_value_td` keeps 1 / L_k of it. Both
weigh positions wrongly.

**No interpolation.** `hold_mc` and `segment_td` hold the value of the last cut and keep all of g_t. So does
`masked_advantage`: it trains only on exact tokens at random places, divided by the probability that they are exact.
This costs noise.
"""

ALL_ROWS = """## All estimators

**Variance** is the trace of the covariance of one prompt's gradient. **Error** is |G - formula| / |g|. The other
columns are those of the first table.
"""

LEGEND = """## What the expectations mean

psi_t is the score of token t, the gradient of its log-probability, and g_t = E[r psi_t].

| expected gradient | meaning |
|---|---|
{rows}
"""

MEANINGS = {
    "unbiased": "the gradient of J",
    "(1 - 1/G) grad J": "the gradient of J, scaled by (G - 1) / G: the mean of the group contains the response itself",
    "(1 - 1/G) grad J / T": "the same, divided by the largest number of tokens T",
    "w_G(p) grad p": "the gradient of the success probability p, weighted by w_G(p) = sqrt((G-1)/G) "
    "E_k[sqrt(k/G (1 - k/G))] / (p (1-p)), k ~ Binomial(G, p): prompts get unequal weights",
    "w_G(p) grad p / T": "the same, divided by the number of tokens T of the response",
    "c w_G(p) grad p": "w_G(p) grad p times c = sqrt((G T - 1) / (T (G - 1))): the deviation is over G T tokens",
    "w_G(p) grad p + entropies": "alpha E[sum_t psi_t (p^(G-1) r H_t - (1-p)^(G-1) (1-r) (max_k H_k - H_t))] is added, "
    "from prompts whose responses are all right or all wrong; H_t is the entropy at token t, alpha = 0.1",
    "no closed form": "no formula is known; a bias must be measured",
    "sum_t (1 - alpha_t) g_t": "alpha_t is how far t lies along the segment between its two cuts, from 0 to 1",
    "sum_t g_t / L_k": "L_k is the number of tokens in the segment that t lies in",
    "sum of g_t at exact t": "the advantage of t is exact if there is a cut before and behind it",
    "0: no t is exact": "nothing is learned",
    "sum_t (1 - n_t / 2G) g_t": "n_t of the two turns are not over at t; their rewards are compared with the mean over "
    "the 2G turns of the group, which contains them",
    "sum_t P(t is exact) g_t": "each position keeps the probability that its advantage is exact",
    "grad J + error of V": "(1 - lambda) sum_l lambda^(l-1) E[psi_t e(s_(t+l))] is added, with l from 1; "
    "e = V - V_pi is the error of the critic",
    "grad J - c lambda^(T-t)": "the critic's values are too high by c, which acts as a (wrong) reward for the length",
    "grad E[r + token rewards]": "the gradient of the reward plus the token rewards of the DPO policy",
    "grad J - beta E[r past alpha]": "a token misses the part of the reward that was paid before it: past alpha is the "
    "sum of alpha over earlier tokens, and beta the share of the reward that is spread over tokens",
    "beta grad J": "the gradient of J, scaled by DPO's beta",
    "beta/2 (best - worst)": "beta/2 E[psi of the best response - psi of the worst response]",
    "grad (J - beta KL)": "the gradient of J with a KL penalty of weight beta",
    "E[(r - b) S], b with r": "S is the score of the whole response; the baseline b contains the response's own return",
    "E_old[w d (S - S')/2]": "of pairs of earlier weights: d is by how much the better one's reward is higher, S its "
    "score, S' that of the worse one, w the ratio of their importance ratios, or 0 where it is clipped",
    "E_old[w A psi]": "the mean over responses of earlier weights; w is the weight that the importance ratio gets, A "
    "the advantage over the other response",
    "E_old[min(w, 1.4) A psi]": "the same, where w is the token's importance ratio, cut off at 1.4",
}

THEOREM = """## The policy gradient theorem

These identities are proved with sympy on small trees, for symbolic token rewards, discounts gamma and logits.
"""
