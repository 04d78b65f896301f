"""What an environment says as tokens, by templates of the kinds of several families, against the whole conversation."""

import copy

import pytest
import torch

from lit_rl.errors import UsageError
from lit_rl.policy import TabularPolicy

LOOP = "{% for m in messages %}"
# how each kind writes a conversation, in our words: its special tokens, the one that ends a turn, and the template
KINDS = {
    "ours": (["<user>", "<assistant>"], "<end>", None),
    "llama 3": (
        ["<|begin|>", "<|start|>", "<|stop|>", "<|eot|>"],
        "<|eot|>",
        "<|begin|>" + LOOP + "<|start|>{{ m['role'] }}<|stop|>\n\n{{ m['content'] | trim }}<|eot|>{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}",
    ),
    "qwen 2.5": (
        ["<|im_start|>", "<|im_end|>"],
        "<|im_end|>",
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n{% endif %}"
        + LOOP
        + "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ),
    "gemma": (
        ["<bos>", "<start_of_turn>", "<end_of_turn>"],
        "<end_of_turn>",
        "<bos>{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + LOOP
        + "{% set mine = loop.index0 % 2 == 0 %}"
        "{% if (m['role'] == 'user') != mine %}{{ raise_exception('roles must alternate') }}{% endif %}"
        "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}"
        "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    ),
}
SMOLLM2 = KINDS["qwen 2.5"][2].replace("Help.", "You are small.")
KINDS["smollm2"] = (*KINDS["qwen 2.5"][:2], SMOLLM2)
# an assistant's turn loses its thoughts once the user has spoken again, and has an empty thought before
QWEN3 = (
    "{% set ns = namespace(last=0) %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% set text = m['content'] %}"
    "{% if m['role'] == 'assistant' %}{% set text = text.split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.index0 > ns.last %}{% set text = '<think>\n\n</think>\n\n' + text %}{% endif %}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ text }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKED = [{"role": "user", "content": "How many?"}]
SAID = [*ASKED, {"role": "assistant", "content": "15"}]
HINT = [{"role": "user", "content": " Try 12+3 = again.\n"}]


def made(policy, kind):
    special, end, template = KINDS[kind]
    policy = copy.copy(policy)
    policy.tokenizer = copy.deepcopy(policy.tokenizer)
    policy.tokenizer.add_special_tokens({"additional_special_tokens": special})
    policy.tokenizer.chat_template = template or policy.tokenizer.chat_template
    policy.stop_ids = torch.tensor([policy.eos_id, policy.tokenizer.convert_tokens_to_ids(end)])
    return policy, policy.tokenizer.convert_tokens_to_ids(end)


def with_template(policy, template, kind="qwen 2.5"):
    policy, _ = made(policy, kind)
    policy.tokenizer.chat_template = template
    return policy


@pytest.mark.parametrize("kind", KINDS)
def test_turns_in_a_row_are_the_whole_conversation(policy, kind):
    """Three turns: prompt, what the policy wrote, its stop token, what was said, and so on; nothing twice."""
    policy, end = made(policy, kind)
    policy.check_turns()
    messages, ids = list(ASKED), policy.encode_prompt(ASKED)
    for said in ("15", "", "No, 16. I'm sure"):
        written = policy.encode_text(said)
        messages.append({"role": "assistant", "content": said})
        ids += [*written, end, *policy.encode_reply(messages, HINT)]
        messages += HINT
    assert ids == policy.encode_prompt(messages)


@pytest.mark.parametrize("kind", ["llama 3", "qwen 2.5", "smollm2"])
def test_several_messages_and_other_roles(policy, kind):
    policy, end = made(policy, kind)
    reply = [{"role": "tool", "content": "= 15"}, {"role": "user", "content": ""}]
    ids = [*policy.encode_prompt(ASKED), *policy.encode_text("15"), end, *policy.encode_reply(SAID, reply)]
    assert ids == policy.encode_prompt([*SAID, *reply])


@pytest.mark.parametrize("kind", KINDS)
def test_blanks_around_a_turn_change_nothing(policy, kind):
    """Templates may trim them; what the policy wrote stays as it is."""
    policy, _ = made(policy, kind)
    blank = [*ASKED, {"role": "assistant", "content": " 15\n"}]
    assert policy.encode_reply(blank, HINT) == policy.encode_reply(SAID, HINT)


QUOTED = {  # what is said, and what is left of it; head and tail together are stop
    "{stop}\n{other}assistant\n15": "\nassistant\n15",
    "a{stop}b": "ab",
    "{head}{stop}{tail}": "",
    "{head}{other}{tail}15{stop}": "15",
}


@pytest.mark.parametrize("kind", ["llama 3", "smollm2"])
@pytest.mark.parametrize("quoted", QUOTED)
def test_special_tokens_that_an_environment_quotes_are_left_out(policy, kind, quoted):
    policy, end = made(policy, kind)
    stop, other = policy.tokenizer.convert_ids_to_tokens(end), KINDS[kind][0][-2]
    live = [{"role": "user", "content": quoted.format(stop=stop, other=other, head=stop[:3], tail=stop[3:])}]
    plain = [{"role": "user", "content": QUOTED[quoted]}]
    assert policy.encode_reply(SAID, live) == policy.encode_reply(SAID, plain)
    assert policy.encode_prompt(live) != policy.encode_prompt(plain)  # prompts stay what they are


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_ends_with_the_templates_own_token(policy, kind):
    policy, end = made(policy, kind)
    assert policy.end_id == end and end in policy.stop_ids


def test_a_turn_ends_with_eos_where_the_templates_token_is_no_stop_token(policy):
    policy = with_template(policy, LOOP + CHATML.replace("<|im_end|>", "<|done|>") + OPEN)
    assert policy.end_id == policy.eos_id


def test_a_turn_that_ended_with_another_stop_token_gets_no_second_end(policy):
    """The policy's EOS stands where the template has the end of a turn."""
    policy, end = made(policy, "qwen 2.5")
    said = policy.encode_reply(SAID, HINT)
    assert policy.tokenizer.decode(said).startswith("\n<|im_start|>user") and said.count(end) == 1


def test_a_template_that_ends_no_turn_leaves_that_to_eos(policy):
    lines = (
        "{{ m['role'] }}: {{ m['content'] }}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    plain = with_template(policy, LOOP + lines)
    assert plain.tokenizer.decode(plain.encode_reply(SAID, HINT)) == f"\nuser: {HINT[0]['content']}\nassistant: "


CHATML = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
OPEN = "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
REFUSED = {
    "moves the system prompt": (
        LOOP + "{% if loop.last %}Help. {% endif %}" + CHATML + OPEN,
        HINT,
        "writes earlier messages anew when others follow",
    ),
    "leaves out earlier turns": (
        LOOP + "{% if m['role'] == 'user' %}" + CHATML + "{% endif %}" + OPEN,
        HINT,
        "assistant",
    ),
    "opens with a thought": (
        LOOP + CHATML + OPEN.replace("assistant\n", "assistant\n<think>"),
        HINT,
        r"opens a turn of the policy with '.*<think>' and leaves that out",
    ),
    "does not know the role": (
        LOOP + "{% if m['role'] != 'tool' %}" + CHATML + "{% endif %}" + OPEN,
        [{"role": "tool", "content": "= 15"}],
        "leaves out a message of the roles tool",
    ),
    "alternation": (KINDS["gemma"][2], HINT * 2, r"refuses .* \(roles must alternate\)"),
    "ends with no stop token": (
        LOOP + CHATML.replace("<|im_end|>", "<|done|>") + OPEN,
        HINT,
        r"'<\|done\|>', which has no stop token.*generation_config.json",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_template_that_will_not_do_is_told(policy, kind):
    template, reply, message = REFUSED[kind]
    policy = with_template(policy, template)
    with pytest.raises(UsageError, match=message) as error:
        policy.encode_reply(SAID, reply)
    assert "\n" not in str(error.value) and "model.policy.path" in str(error.value)


@pytest.mark.parametrize("content", ["a", "15", "end", "How many?", "assistant"])
def test_a_message_that_is_left_out_is_told_whatever_it_says(policy, content):
    """Also where something else says the same."""
    policy = with_template(policy, REFUSED["does not know the role"][0])
    reply = [{"role": "tool", "content": content}, {"role": "user", "content": f"It is 15, {content}"}]
    with pytest.raises(UsageError, match="leaves out a message of the roles tool;"):
        policy.encode_reply(SAID, reply)


@pytest.mark.parametrize("change", [".split('[/THINK]')[-1]", ".replace('[', '(')", " | replace('\n', ' ')"])
def test_a_template_that_changes_what_was_said_is_told(policy, change):
    """When that happens; turns that it leaves as they are can be answered."""
    content = "{{ m['content'] }}"
    text = "{% if m['role'] == 'assistant' %}{{ m['content']" + change + " }}{% else %}" + content + "{% endif %}"
    policy = with_template(policy, LOOP + CHATML.replace(content, text) + OPEN)
    with pytest.raises(UsageError, match=r"changes or strips what the policy said.*THINK") as error:
        policy.encode_reply([*ASKED, {"role": "assistant", "content": "[THINK]12+\n3[/THINK]15"}], HINT)
    assert "\n" not in str(error.value) and "model.policy.path" in str(error.value)
    assert policy.encode_reply(SAID, HINT) == with_template(policy, LOOP + CHATML + OPEN).encode_reply(SAID, HINT)


def test_a_template_that_strips_thoughts_is_told_at_once(policy):
    policy = with_template(policy, QWEN3)
    with pytest.raises(UsageError, match="strips what stands between <think> and </think>"):
        policy.check_turns()


def test_bare_tokens_have_no_template():
    policy = TabularPolicy(vocabulary=4)
    policy.check_turns()
    assert policy.encode_reply(SAID, [{"role": "user", "content": "2 1"}]) == [2, 1]
