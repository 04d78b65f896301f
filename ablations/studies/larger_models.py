"""Policies beyond the smallest one, and what they run on; parts of the studies at ``mid`` and ``small``."""

from ablations.config import Config
from ablations.study import Stage

EMBEDDED_MID: Config = {"class_path": "lit_rl.policy.CausalPolicy", "init_args": {"path": "embedded-mid"}}
SMOLLM2: Config = {"class_path": "lit_rl.policy.CausalPolicy", "init_args": {"path": "data/smollm2"}}

TAUGHT = Stage(
    "taught-SmolLM2",
    (
        *("fit", "--model", "Supervised", "--model.policy.path", "data/smollm2", "--model.reference", "false"),
        *("--model.learning_rate", "5e-5", "--model.max_new_tokens", "160", "--data.task", "GSM8KStyle"),
        *("--data.task.steps", "3", "--data.prompts_per_iteration", "512", "--data.rows_per_microbatch", "32"),
        *("--trainer.max_epochs", "6", "--trainer.check_val_every_n_epoch", "1000", "--seed_everything", "0"),
        *("--trainer.accelerator", "auto", "--trainer.devices", "1", "--trainer.enable_progress_bar", "false"),
        *("--gradient_variance.every_n_iterations", "0", "--checkpoint.dirpath", "{folder}"),
    ),
    ("--trainer.max_epochs", "1", "--data.prompts_per_iteration", "2", "--data.rows_per_microbatch", "2"),
)

ON_A_GPU: Config = {
    "trainer.accelerator": "auto",
    "trainer.devices": 1,
    "trainer.precision": "bf16-mixed",
    "data.sampler": "lit_rl.sampling.LocalSampler",
    "data.sampler.compile": True,
    "checkpoint.every_n_epochs": 0,  # 1.6 GB a cell
}
