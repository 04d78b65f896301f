"""ABC: PPO whose reward is spread over the tokens by the attention of a reward model."""

from lit_rl.algorithms.placements import Attention
from lit_rl.algorithms.ppo import PPO
from lit_rl.ranges import Share


class ABC(PPO):
    """PPO whose reward is spread over the tokens of the response by a reward model's attention (2402.00782).

    Token t earns r_t = beta alpha_t r + (1 - beta) r 1[t = T]. alpha_t is the attention of the last token to token t in
    the last layer of the reward model. It is known only at the end of the response. A token's reward-to-go misses what
    was paid before it, although the token helped to decide it; the gradient is biased by -beta E[psi_t r sum_{k<t}
    alpha_k]. With ``weighting`` ``full`` each token is weighed by the sum of all token rewards, which is r; that is
    unbiased.

    Args:
        reward_model: a folder written by ``python -m lit_rl fit-reward``, or a name on the hub. It only spreads the
            reward; the reward itself is the task's, unless ``reward.model`` is set as well.
        beta: share of the reward that is spread, 0 to 1.
    """

    def __init__(self, reward_model: str, beta: Share = 0.5, **kwargs) -> None:
        super().__init__(placement=_Redistribution(reward_model, beta), **kwargs)


class _Redistribution(Attention):
    """The placement whose arguments are ABC's."""

    setting = "model.reward_model"
