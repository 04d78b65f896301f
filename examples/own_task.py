"""A task of your own: prompts and a score. The embedded policy, which was taught it half wrong, learns it by RLOO.

From the repository's root:

    python examples/own_task.py    # a minute on two cores; prints the accuracy before and after
    python -m lit_rl fit --data.task examples.own_task.Losses --model RLOO --trainer.max_epochs 20    # by command
"""

import re

from datasets import Dataset
from lightning import Trainer, seed_everything
from torch import Tensor

from lit_rl.algorithms import RLOO
from lit_rl.callbacks import RewardCallback
from lit_rl.data import RolloutDataModule
from lit_rl.ranges import Count
from lit_rl.tasks import Example, Split, Task
from lit_rl.tasks.base import split_of


class Losses(Task):
    """Ben has 23 cards and loses some, twice; how many are left?

    Args:
        most: the largest number of things lost at a time.
    """

    def __init__(self, most: Count = 9) -> None:
        self.most = most

    def prompts(self, split: Split) -> Dataset:
        lost = range(2, self.most + 1)
        problems = [(n, a, b) for n in range(2 * self.most, 31) for a in lost for b in lost]
        # split_of puts the same problem into the same split, always, so that no test problem is trained on
        own = [problem for problem in problems if split_of(str(problem)) == split]
        return Dataset.from_list(
            [{"prompt": _chat(*problem), "answer": problem[0] - sum(problem[1:])} for problem in own]
        )

    def score(self, example: Example, ids: Tensor, text: str) -> float:
        return float(text.partition("#### ")[2] == str(example["answer"]))

    def score_flexible(self, example: Example, ids: Tensor, text: str) -> float:
        """Reported beside the other: the last number, wherever it stands."""
        return float(re.findall(r"-?\d+", text)[-1:] == [str(example["answer"])])


def _chat(n: int, a: int, b: int) -> list[dict[str, str]]:
    question = f"Ben has {n} cards. Ben loses {a}. Ben loses {b}. How many cards does Ben have now?"
    return [{"role": "user", "content": question}]


def main(iterations: int = 12) -> None:
    seed_everything(0)
    algorithm = RLOO(samples=4, max_new_tokens=56)
    data = RolloutDataModule(Losses(), prompts_per_iteration=16, rows_per_microbatch=32)
    trainer = Trainer(
        max_epochs=iterations,
        reload_dataloaders_every_n_epochs=1,
        limit_val_batches=0,
        callbacks=[RewardCallback()],
        logger=False,
        enable_checkpointing=False,
    )
    (before,) = trainer.test(algorithm, datamodule=data, verbose=False)
    trainer.fit(algorithm, datamodule=data)
    (after,) = trainer.test(algorithm, datamodule=data, verbose=False)
    print(f"accuracy {before['test/accuracy']:.2f} before, {after['test/accuracy']:.2f} after {iterations} iterations")


if __name__ == "__main__":
    main()
