"""The same command again."""

from functools import partial
from pathlib import Path

import torch
from every_algorithm import SETTINGS, commands
from forked import run, said
from trials import Trial

AT_ONCE = 2
ITERATIONS = 20
PROMISE = "The same commands in another folder end with bitwise the same weights, whatever the algorithm"


def again(name: str, folder: Path) -> None:
    found = []
    for place in (folder / "one", folder / "two"):
        place.mkdir()
        for args in commands(name, ITERATIONS, "--checkpoint.dirpath=saved"):
            assert run(place, args) == 0, said(place)
        found.append(torch.load(place / "saved" / "last.ckpt", weights_only=True))
    one, two = (each["state_dict"] for each in found)
    assert found[0]["global_step"] >= ITERATIONS
    assert one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())


TRIALS = [Trial(PROMISE, name, partial(again, name)) for name in SETTINGS]
