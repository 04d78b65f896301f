"""A chat template between two turns of the policy: the tokens that an environment's messages become.

What the policy wrote stays the tokens that it wrote. The template says what stands behind them: the end of the turn
that the policy's stop token has not ended by itself, the messages, and what opens the next turn.
"""

from collections.abc import Collection, Sequence
from typing import Any

from lit_rl.errors import UsageError

TURN = "what-the-policy-said"  # stands for a turn of the policy; no template trims or splits it
STAND_IN = {"role": "assistant", "content": TURN}
THOUGHT = "what-the-policy-thought"
SETTING = "model.policy.path: the chat template"
REMEDY = "give a folder whose chat_template leaves earlier turns as they are"


def reply_ids(
    tokenizer: Any, stop_ids: Collection[int], messages: Sequence[dict[str, str]], reply: Sequence[dict[str, str]]
) -> list[int]:
    """Token ids from behind the policy's stop token to where its next turn begins.

    They are the difference of two conversations by the template: the one up to the policy's last turn, and the one with
    the reply and an opened turn behind it. Of what ends the policy's turn, its stop token and what stands before it are
    left out: the policy has written them. The texts of special tokens are taken out of the reply, for they would be
    read as the template's own.

    Args:
        tokenizer: with a chat template.
        stop_ids: of the tokens that end a turn of the policy.
        messages: of the conversation, the policy's last turn the last of them.
        reply: the environment's messages, behind that turn.

    Raises:
        UsageError: the template refuses the messages, leaves some out, or writes earlier ones anew when others follow.
    """
    *earlier, turn = messages
    reply = [{**message, "content": _without_special(tokenizer, message["content"])} for message in reply]
    before = render(tokenizer, earlier)
    whole = render(tokenizer, [*earlier, STAND_IN, *reply])
    if not whole.startswith(before):
        closed = render(tokenizer, earlier, opened=False)
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
    _check_all_are_in(tokenizer, earlier, reply)
    written, text = render(tokenizer, [*messages, *reply]), turn["content"].strip()
    shown = written.removeprefix(before).removesuffix(behind)
    if text and (written != before + shown + behind or shown.strip() != text):  # blanks at its ends may go
        raise UsageError(
            f"{SETTING} changes or strips what the policy said in an earlier turn ({text[:60]!r}), but "
            f"tokens that were sampled stay what they are; {REMEDY}"
        )
    end, rest = _behind_the_end(tokenizer, stop_ids, earlier, behind)
    ids: list[int] = tokenizer.encode(end + rest, add_special_tokens=False)
    if not ids or ids[0] not in stop_ids:
        raise UsageError(f"model.policy.path: the tokenizer does not read {end!r} as one token; take another model")
    return ids[1:]


def end_of_turn(tokenizer: Any, stop_ids: Collection[int]) -> int:
    """The stop token by which the template ends a turn of the policy; EOS where it has none."""
    stop, _ = _ending(tokenizer, stop_ids, [{"role": "user", "content": "?"}])
    return int(tokenizer.eos_token_id if stop is None else tokenizer.convert_tokens_to_ids(stop))


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
    stop, closing = _ending(tokenizer, stop_ids, messages)
    if not behind.startswith(closing):
        raise UsageError(f"{SETTING} ends the policy's turn in another way when messages follow; {REMEDY}")
    if stop is not None:
        return stop, behind[closing.index(stop) + len(stop) :]
    if closing.strip():
        raise UsageError(
            f"{SETTING} ends a turn with {closing.strip()!r}, which has no stop token of the model; add its id to "
            "eos_token_id in the folder's generation_config.json"
        )
    return str(tokenizer.eos_token), behind


def _ending(tokenizer: Any, stop_ids: Collection[int], messages: Sequence[dict[str, str]]) -> tuple[str | None, str]:
    """What the template has behind a turn of the policy that is the last one: the first stop token there, and all."""
    closing = render(tokenizer, [*messages, STAND_IN], opened=False).rpartition(TURN)[2]
    known = tokenizer.convert_ids_to_tokens(sorted(stop_ids))  # None for an id that has no token
    stops = [token for token in known if token and token in closing]
    return min(stops, key=closing.index, default=None), closing


def _check_all_are_in(tokenizer: Any, messages: Sequence[dict[str, str]], reply: Sequence[dict[str, str]]) -> None:
    """That the template writes each message behind the policy's turn: a mark in place of what it says is there."""
    marked = [{**message, "content": f"what-{i}-says"} for i, message in enumerate(reply)]
    behind = render(tokenizer, [*messages, STAND_IN, *marked]).rpartition(TURN)[2]
    lost = dict.fromkeys(message["role"] for message in marked if message["content"] not in behind)
    if lost:
        raise UsageError(
            f"{SETTING} leaves out a message of the roles {', '.join(lost)}; take another role in the environment, "
            "such as user, or another template"
        )


def _without_special(tokenizer: Any, text: str) -> str:
    """The text without those of special tokens, also such as come about when others are taken out."""
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    special = {*tokenizer.all_special_tokens, *added}
    while found := [token for token in special if token in text]:
        for token in found:
            text = text.replace(token, "")
    return text
