"""A chat template between two turns of the policy: the tokens that an environment's messages become.

What the policy wrote stays the tokens that it wrote. The template says what stands behind them: the end of the turn
that the policy's stop token has not ended by itself, the messages, and what opens the next turn.
"""

from collections.abc import Collection, Sequence
from typing import Any

from lit_rl.errors import UsageError

TURN = "what-the-policy-said"  # stands for a turn of the policy; no template trims or splits it
THOUGHT = "what-the-policy-thought"
SETTING = "model.policy.path: the chat template"
REMEDY = "give a folder whose chat_template leaves earlier turns as they are"


def reply_ids(
    tokenizer: Any, stop_ids: Collection[int], messages: Sequence[dict[str, str]], reply: Sequence[dict[str, str]]
) -> list[int]:
    """Token ids from behind the policy's stop token to where its next turn begins.

    They are the difference of two conversations by the template: the one up to the policy's last turn, and the one with
    the reply and an opened turn behind it. Of what ends the policy's turn, its stop token and what stands before it are
    left out: the policy has written them.

    Args:
        tokenizer: with a chat template.
        stop_ids: of the tokens that end a turn of the policy.
        messages: of the conversation before the policy's last turn.
        reply: the environment's messages, behind that turn.

    Raises:
        UsageError: the template refuses the messages, leaves some out, or writes earlier ones anew when others follow.
    """
    before = render(tokenizer, messages)
    whole = render(tokenizer, [*messages, {"role": "assistant", "content": TURN}, *reply])
    if not whole.startswith(before):
        closed = render(tokenizer, messages, opened=False)
        if whole.startswith(closed):
            raise UsageError(
                f"{SETTING} opens a turn of the policy with {before.removeprefix(closed)!r} and leaves that out of "
                f"earlier turns; {REMEDY}"
            )
        raise UsageError(
            f"{SETTING} writes earlier messages anew when others follow (it moves or adds a system prompt, or changes "
            f"earlier turns), but tokens that were sampled stay what they are; {REMEDY}"
        )
    spoken, found, behind = whole[len(before) :].partition(TURN)
    if not found:
        raise UsageError(f"{SETTING} leaves out earlier turns of the role assistant; {REMEDY}")
    if spoken:
        raise UsageError(
            f"{SETTING} puts {spoken!r} before an earlier turn of the policy, which began without it; {REMEDY}"
        )
    if not all(_is_in(behind, tokenizer, messages, message) for message in reply):
        roles = ", ".join(dict.fromkeys(message["role"] for message in reply))
        raise UsageError(
            f"{SETTING} leaves out a message of the roles {roles}; take another role in the environment, such as "
            "user, or another template"
        )
    end, rest = _behind_the_end(tokenizer, stop_ids, messages, behind)
    ids: list[int] = tokenizer.encode(end + rest, add_special_tokens=False)
    if not ids or ids[0] not in stop_ids:
        raise UsageError(f"model.policy.path: the tokenizer does not read {end!r} as one token; take another model")
    return ids[1:]


def check_thoughts(tokenizer: Any) -> None:
    """That the template leaves in earlier turns what the policy thought.

    Raises:
        UsageError: it does not.
    """
    turn = f"<think>\n{THOUGHT}\n</think>\n\n{TURN}"
    user = {"role": "user", "content": "?"}
    if THOUGHT not in render(tokenizer, [user, {"role": "assistant", "content": turn}, user]):
        raise UsageError(
            f"{SETTING} strips what stands between <think> and </think> from earlier turns, but tokens that were "
            f"sampled stay what they are; {REMEDY}"
        )


def render(tokenizer: Any, messages: Sequence[dict[str, str]], opened: bool = True) -> str:
    """The text of a conversation, by default up to where the policy's next turn begins.

    Raises:
        UsageError: the template refuses it.
    """
    try:
        return str(tokenizer.apply_chat_template(list(messages), add_generation_prompt=opened, tokenize=False))
    except Exception as error:  # whatever a template raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        roles = ", ".join(message["role"] for message in messages)
        raise UsageError(
            f"{SETTING} refuses a conversation of the roles {roles} ({reason}); take other roles in the environment, "
            "or another template"
        ) from None


def _behind_the_end(
    tokenizer: Any, stop_ids: Collection[int], messages: Sequence[dict[str, str]], behind: str
) -> tuple[str, str]:
    """The stop token that ends the policy's turn, as text, and what the template has behind it.

    A template that ends a turn with no token at all leaves that to the policy's own EOS.
    """
    last = render(tokenizer, [*messages, {"role": "assistant", "content": TURN}], opened=False)
    closing = last.rpartition(TURN)[2]
    if not behind.startswith(closing):
        raise UsageError(f"{SETTING} ends the policy's turn in another way when messages follow; {REMEDY}")
    known = tokenizer.convert_ids_to_tokens(sorted(stop_ids))  # None for an id that has no token
    stops = [token for token in known if token and token in closing]
    if stops:
        first = min(stops, key=closing.index)
        return first, behind[closing.index(first) + len(first) :]
    if closing.strip():
        raise UsageError(
            f"{SETTING} ends a turn with {closing.strip()!r}, which has no stop token of the model; add its id to "
            "eos_token_id in the folder's generation_config.json"
        )
    return str(tokenizer.eos_token), behind


def _is_in(text: str, tokenizer: Any, messages: Sequence[dict[str, str]], message: dict[str, str]) -> bool:
    """Whether the text has the message, or else, where a template writes contents in its own way, would have it."""
    if message["content"].strip() in text:
        return True
    other = {**message, "content": THOUGHT}
    return THOUGHT in render(tokenizer, [*messages, {"role": "assistant", "content": TURN}, other])
