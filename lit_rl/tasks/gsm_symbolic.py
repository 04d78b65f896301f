"""GSM-Symbolic (2410.05229): GSM8K with other names and numbers, as reasoning-gym (2505.24760) makes it."""

from typing import Any

from datasets import Dataset

from lit_rl.ranges import Count, Seed
from lit_rl.tasks.base import Split
from lit_rl.tasks.gsm8k import INSTRUCTIONS, AnswerReader, WordProblems
from lit_rl.tasks.reasoning import different

FORMAT = " Give the result as your final answer. Do not include units."  # reasoning-gym's; the instruction says it here


class GSMSymbolic(WordProblems):
    """GSM-Symbolic: templates of GSM8K's problems, filled with random names and numbers (2410.05229).

    These are the problems of ``ReasoningGym`` with the data set ``gsm_symbolic``, scored as GSM8K is, 0 or 1. (The
    score of reasoning-gym itself takes a response's first number, and gives 0.01 for a wrong one.) No question is in
    two splits, but all splits share the templates: the test is on other numbers, not on other problems. The column
    ``demonstration`` is the worked solution, which ends in ``#### n``.

    Args:
        train_size: problems of the training split, all different.
        val_size: problems of the validation split.
        test_size: problems of the test split.
        seed: of the generator. The splits of two seeds are disjoint as well.
        instruction: text before each question; null takes one that fits ``answer``.
        answer: where the answer of a response is read: ``hash``, ``boxed``, ``last_number`` or ``math``.

    Raises:
        UsageError: when prompts are asked for, reasoning-gym is not installed.
    """

    def __init__(
        self,
        train_size: Count = 8192,
        val_size: Count = 256,
        test_size: Count = 512,
        seed: Seed = 0,
        instruction: str | None = None,
        answer: AnswerReader = "hash",
    ) -> None:
        super().__init__(answer)
        self.seed, self.instruction = seed, INSTRUCTIONS[answer] if instruction is None else instruction
        self.sizes: dict[str, int] = {"train": train_size, "val": val_size, "test": test_size}
        self._splits: dict[str, Dataset] = {}

    def prompts(self, split: Split) -> Dataset:
        if split not in self._splits:
            seed, size = f"{self.seed} {split}", self.sizes[split]
            items = different("gsm_symbolic", {}, seed, split, size, question=_question, seed_bits=63)
            self._splits[split] = Dataset.from_list([self._row(item) for item in items])
        return self._splits[split]

    def _row(self, item: dict[str, Any]) -> dict[str, Any]:
        question, answer = _question(item), item["metadata"]["answer_cot"]
        prompt = [{"role": "user", "content": self.instruction + question}]
        return {"prompt": prompt, "question": question, "answer": answer, "demonstration": answer}


def _question(item: dict[str, Any]) -> str:
    question: str = item["question"]
    return question.removesuffix(FORMAT)
