"""Whether a language model and its tokenizer can be sampled from, told when they are loaded."""

from typing import Any

from transformers import DynamicCache

from lit_rl.errors import UsageError


def check_language_model(model: Any, tokenizer: Any, path: str) -> None:
    """That the tokenizer renders prompts of tokens that the model knows, and that the model's memory can be copied.

    Args:
        path: where both come from, for messages.

    Raises:
        UsageError: one of that does not hold.
    """
    if tokenizer.chat_template is None:
        raise UsageError(f"model.policy.path: the tokenizer of '{path}' has no chat template; set one and save it")
    if tokenizer.eos_token_id is None:
        raise UsageError(f"model.policy.path: the tokenizer of '{path}' has no EOS token; set one and save it")
    tokens, embeddings = len(tokenizer), len(model.get_input_embeddings().weight)
    if tokens > embeddings:
        raise UsageError(
            f"model.policy.path: the tokenizer of '{path}' has {tokens} tokens and the model embeddings of "
            f"{embeddings}; take the tokenizer that belongs to it, or resize the embeddings"
        )
    try:
        rendered = tokenizer.apply_chat_template([{"role": "user", "content": "1"}], add_generation_prompt=True)
    except Exception as error:  # whatever a template raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"model.policy.path: the chat template of '{path}' fails ({reason}); fix it") from None
    if not rendered["input_ids"]:
        raise UsageError(f"model.policy.path: the chat template of '{path}' renders to no token; fix it and save it")
    memories = {type(layer).__name__ for layer in DynamicCache(config=model.config).layers if not _copies(layer)}
    if memories:
        raise UsageError(
            f"model.policy.path: {type(model).__name__} remembers more than keys and values ({', '.join(memories)}), "
            "which sampling can't copy; take a model of attention alone"
        )


def _copies(layer: Any) -> bool:
    return hasattr(layer, "batch_repeat_interleave") and hasattr(layer, "batch_select_indices")
