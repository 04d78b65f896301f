"""Enumerated gradients, and the certificate."""

import contextlib
import io

import torch

from benchmarks.measure import Line, limit, seconds
from lit_rl.commands.verify import verify
from lit_rl.exact.tree import grow
from lit_rl.policy import TokenTransformer
from lit_rl.tasks import KeyToken


def exact() -> list[Line]:
    policy, task = TokenTransformer(vocabulary=4, length=8), KeyToken(vocabulary=4, length=8)
    tree = grow(policy, task)
    threads = torch.get_num_threads()
    gradient = min(seconds(tree.gradient) for _ in range(3))
    with contextlib.redirect_stdout(io.StringIO()):
        certificate = seconds(lambda: verify([]))
    torch.set_num_threads(threads)  # verify takes one
    return [
        limit("exact gradient of the embedded transformer, V=4, T=8: at most", "s", gradient, 5),
        limit("verify, without its imports: at most", "s", certificate, 60),
    ]
