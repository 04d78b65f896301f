"""``python -m lit_rl export``: a checkpoint's policy as a folder that transformers loads."""

from lit_rl.commands.parser import Parser, free_folder
from lit_rl.errors import UsageError
from lit_rl.policy import CausalPolicy
from lit_rl.policy.checkpoints import load_policy, read_checkpoint

DESCRIPTION = (
    "Writes the policy of a checkpoint of fit, with its tokenizer, for AutoModelForCausalLM.from_pretrained and "
    "whatever serves such folders. Adapters (model.policy.lora_rank) are merged into the weights."
)


def export(args: list[str]) -> int:
    """Runs the subcommand; returns the exit code."""
    parser = Parser(prog="python -m lit_rl export", description=DESCRIPTION)
    parser.add_argument("--ckpt_path", type=str, required=True, help="a checkpoint that fit has written")
    parser.add_argument("--output", type=str, required=True, help="the folder to write; new, or empty")
    parser.add_argument(
        "--policy.path", type=str | None, help="where the model that it started from is now, if that has moved"
    )
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run Python code that the model's folder contains"
    )
    config = parser.parse_args(args)
    output = free_folder(config.output)
    saved = read_checkpoint(config.ckpt_path, "ckpt_path", "give the path of a checkpoint")
    recipe = saved.get("policy")
    if not recipe:
        raise UsageError(f"ckpt_path: {config.ckpt_path} holds no language model; there is nothing to export")
    if config.policy.path is not None:
        recipe = {**recipe, "path": config.policy.path}
    try:
        policy = CausalPolicy(**{**recipe, "trust_remote_code": config.trust_remote_code})
    except UsageError as error:
        raise UsageError(
            f"policy.path: what the policy started from is not at {recipe['path']}; name it ({error})"
        ) from None
    load_policy(policy, saved, f"policy.path: {recipe['path']} is another model than that of {config.ckpt_path}")
    policy.save_pretrained(output)
    print(f"{output}: {sum(p.numel() for p in policy.parameters()):,} parameters")
    return 0
