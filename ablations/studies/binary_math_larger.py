"""The same question with a larger model and longer responses, and fewer arms."""

from ablations.config import Config
from ablations.studies import binary_math as tiny
from ablations.studies.larger_models import EMBEDDED_MID
from ablations.studies.parts import ONE_START, SMALL_MODELS
from ablations.study import Reading, Tuning

LONGER: Config = {
    "model.max_new_tokens": 144,
    "model.policy": EMBEDDED_MID,
    "data.task.steps": 4,
    "data.eval_prompts": 96,
}

MID = tiny.study(
    tiny.Scale(tokens=2400, updates=12, pretraining=2, stride=32, looks=2),
    ("REINFORCE", "RLOO", "GRPO", "PPO", "TRePO"),
    scale="mid",
    base={**tiny.BASE, **LONGER},
    tuning=Tuning((1.5e-4, 3e-4, 6e-4, 1.2e-3), (100, 101, 102), tiny.BY),
    hours=2.5,
    reading=Reading(
        "One reward per response is enough for this model, too: from 36 % correct samples, REINFORCE and PPO reach 91 "
        "and 89 %, RLOO 74 %, GRPO 72 % and TRePO 66 %, each at its best allocation and learning rate. Greedy "
        "responses, 94 % of them right at the start, rise to 98 % with REINFORCE and PPO and fall to 80 to 84 % with "
        "the other three. A tiny model, with problems half as long, shows the same two groups.",
        ("below", "unresolved", "below"),
    ),
    notes=(
        f"{SMALL_MODELS} Here it has 3.2M parameters, and problems have four steps in about 80 tokens. The warm start "
        "was taught wrong operators on purpose (data/mid/README.md).",
        ONE_START,
        "Arms have equal generated tokens: about 2,400 per update at the start, and 28,800 in all. Accuracy is that of "
        "96 problems, which take more of a cell's time than training does.",
        "TRePO cuts every 32 tokens, with one continuation per cut.",
        "Fewer responses to a prompt than one are impossible, and more than eight were not tried.",
        "An earlier run (report: commit fe0a17d), on seeds 0 to 7, had one allocation an arm (32 x 1 for PPO, 8 x 4 "
        "for RLOO and GRPO, 4 x 4 for TRePO), a constant rate, 48,000 tokens and the mean over the budget as its "
        "metric. TRePO had -18.8 [-21.3, -16.2] against PPO and -14.5 [-18.4, -10.5] against GRPO, pretrained PPO -8.8 "
        "[-11.8, -5.9] against PPO. PPO had eight times as many prompts per update as TRePO.",
    ),
)
