"""The small tasks that the certificate judges estimators on: all their responses can be listed."""

from lit_rl.tasks import Additive, Bottleneck, KeyToken, Pairwise, Parity

# rewards of one token, of neighbours, of several tokens at once, of all; two lengths fixed, two varied
PAIRS, SUM_EOS = Pairwise(2, 3), Additive(3, 3, eos=True)
PARITY, KEY_EOS = Parity(2, 3), KeyToken(3, 3, eos=True, position=1)
GATE, LONG, LATE_EOS = Bottleneck(2, 3), Pairwise(2, 4), KeyToken(3, 4, eos=True, position=2)
SAMPLED = Parity(2, 4)
