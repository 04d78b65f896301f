"""What ``estimate`` says of models without weights: adapters, engines, devices, what mends, and its command line."""

import json
import re
import shutil

import pytest
from datasets import Dataset
from estimating import PAGE, of
from transformers import AutoConfig

from lit_rl.errors import UsageError
from lit_rl.estimate.memory import held, phases, total
from lit_rl.estimate.mends import mended
from lit_rl.policy.causal import DATA
from lit_rl.tasks import GSM8KStyle

SIZES = ["--model.max_new_tokens=512", "--data.prompts_per_iteration=128"]
ON_GPUS = ["--trainer.accelerator=gpu", "--trainer.devices=8", *SIZES]
QWEN = {  # layers, hidden size, feed-forward, heads, heads of keys, tokens, tied: as published
    "qwen2.5-0.5b": (24, 896, 4864, 14, 2, 151936, True),
    "qwen2.5-7b": (28, 3584, 18944, 28, 4, 152064, False),
}
NAMES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with the configs of models and the embedded tokenizer, and no weights."""
    folder = tmp_path_factory.mktemp("models")
    for name, sizes in QWEN.items():
        ignored = shutil.ignore_patterns("*.safetensors", "config.json")
        shutil.copytree(DATA / "warmstart", folder / name, ignore=ignored)
        settings = dict(zip((*NAMES, "vocab_size", "tie_word_embeddings"), sizes, strict=True))
        AutoConfig.for_model("qwen2", **settings).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def large(models):
    return str(models / "qwen2.5-7b")


def test_adapters_leave_the_rest_without_gradients(large):
    pytest.importorskip("peft")
    whole, adapters = (of(f"--model.policy.path={large}", *more).run for more in ([], ["--model.policy.lora_rank=8"]))
    assert adapters.frozen < 100 and adapters.trained < whole.trained / 100 and adapters.weights > whole.weights
    assert adapters.optimizer == pytest.approx(2 * adapters.trained, rel=1e-3)


# ---- prompts, and an engine -------------------------------------------------------------------------------------


def test_all_prompts_that_are_used_are_looked_at(policy, monkeypatch):
    words = {"train": [1] * 300 + [30], "val": [1] * 3 + [50]}
    asked = {n: [{"role": "user", "content": "a " * n}] for n in (1, 30, 50)}
    monkeypatch.setattr(
        GSM8KStyle, "prompts", lambda self, split: Dataset.from_dict({"prompt": [asked[n] for n in words[split]]})
    )
    tokens = {n: len(policy.encode_prompt(messages)) for n, messages in asked.items()}
    assert of().run.longest == tokens[50] > tokens[30]
    for without in ("--trainer.limit_val_batches=0", "--data.eval_prompts=3"):
        run = of(without).run
        assert run.longest == tokens[30] and run.prompt == pytest.approx((300 * tokens[1] + tokens[30]) / 301)


def test_it_takes_no_vllm_to_estimate_what_its_engine_takes(lit_rl, monkeypatch):
    monkeypatch.setattr("lit_rl.sampling.vllm.find_spec", lambda name: None)
    code, out, err = lit_rl("estimate", "--data.sampler=VLLM", "--data.sampler.memory_share=0.25", "--memory=64")
    assert code == 0, err
    [size] = re.findall(r"^vLLM's engine +([\d.]+)$", out, re.M)
    assert float(size) == 16 and "not in it" not in out


@pytest.mark.parametrize(
    "settings, phase",
    [([], True), (["--data.sampler.sleep=false"], False), (["--data.sampler.tensor_parallel_size=2"], True)],
)
def test_an_engine_takes_its_share_of_a_gpu(models, settings, phase):
    args = [f"--model.policy.path={models / 'qwen2.5-0.5b'}", "--trainer.accelerator=gpu", *settings]
    plain, run = of(*args[:2], memory=80.0).run, of(*args, "--data.sampler=VLLM", memory=80.0).run
    share = 0.3 * 80 * 2**30
    parts = (phases(run, "one", 1).get("sampling", {}), held(run, "one", 1))
    assert [each.get("vLLM's engine", 0.0) for each in parts] == [share * phase, share * (not phase)]
    assert "logits" in phases(plain, "one", 1)["sampling"] and "logits" not in parts[0]
    apart = [*args, "--data.sampler.tensor_parallel_size=2", "--trainer.devices=[2]", "--data.sampler=VLLM"]
    assert of(*apart, memory=80.0).run.engine is None


@pytest.mark.parametrize("sleep", ["true", "false"])
def test_a_smaller_share_mends(models, sleep):
    args = [
        f"--model.policy.path={models / 'qwen2.5-0.5b'}",
        "--trainer.accelerator=gpu",
        "--gradient_variance.every_n_iterations=0",
        "--data.rows_per_microbatch=4",
        "--data.sampler=VLLM",
        f"--data.sampler.sleep={sleep}",
    ]
    first = of(*args, "--data.sampler.memory_share=0.9", memory=40.0)
    assert first.total() > first.memory
    mends = mended(first.run, first.strategy, first.ranks, first.memory - first.base, first.optional)
    assert {*mends.settings} == {"data.sampler.memory_share"}
    again = of(*args, *(f"--{name}={value}" for name, value in mends.settings.items()), memory=40.0)
    assert again.total() <= again.memory and again.total() == pytest.approx(first.base + mends.size, rel=1e-6)


# ---- devices, and what mends ------------------------------------------------------------------------------------


def test_sharding_divides_and_ddp_does_not(large):
    run = of(f"--model.policy.path={large}", *ON_GPUS).run
    one, ddp, fsdp2 = held(run, "one", 8), held(run, "ddp", 8), held(run, "fsdp2", 8)
    for part in ("weights", "optimizer", "gradients", "reference, frozen"):
        assert one[part] == ddp[part] == pytest.approx(8 * fsdp2[part])
    assert ddp["buckets of gradients"] == ddp["gradients"]
    assert phases(run, "fsdp2", 8)["sampling"]["whole weights"] == run.weights
    assert total(run, "fsdp2", 8) < total(run, "one", 1) < total(run, "ddp", 8)


@pytest.mark.parametrize("memory, strategy", [(140.0, "ddp"), (80.0, "fsdp2"), (70.0, "fsdp2")])
def test_settings_that_mend_it_do(large, memory, strategy):
    args = [
        f"--model.policy.path={large}",
        *ON_GPUS,
        f"--trainer.strategy={strategy}",
        "--trainer.precision=bf16-mixed",
    ]
    first = of(*args, memory=memory)
    assert first.total() > first.memory
    mends = mended(first.run, first.strategy, first.ranks, first.memory - first.base, first.optional)
    settings = [f"--{name}={value}" for name, value in mends.settings.items()]
    again = of(*args, *settings, memory=memory)
    assert again.total() <= again.memory
    assert again.total() == pytest.approx(first.base + mends.size, rel=1e-6)


def test_nothing_mends_what_is_far_too_large(large):
    found = of(f"--model.policy.path={large}", "--trainer.accelerator=gpu", memory=8.0)
    assert mended(found.run, found.strategy, found.ranks, found.memory - found.base, found.optional) is None


@pytest.mark.parametrize("name", ["REINFORCE", "OnlineDPO", "Supervised", "RLZVP", "OptimalBaseline"])
def test_other_algorithms(lit_rl, name, tmp_path):
    code, out, err = lit_rl("estimate", f"--model={name}", "--memory=64")
    assert code == 0, err
    assert "It fits" in out and f"{name} on GSM8KStyle" in out and not list(tmp_path.iterdir())


def test_a_share_that_cannot_hold_the_weights_is_refused(large):
    args = [f"--model.policy.path={large}", "--trainer.accelerator=gpu", "--data.sampler=VLLM"]
    with pytest.raises(UsageError, match=r"data\.sampler\.memory_share is 0\.3: of 24\.0 GiB .* take, 28\.4; raise it"):
        of(*args, memory=24.0)
    assert of(*args, "--data.sampler.dtype=bfloat16", memory=80.0).run.engine.size == 24 * 2**30


# ---- the command line -------------------------------------------------------------------------------------------


def test_a_run_that_does_not_fit_ends_with_1_and_names_settings(lit_rl, large, tmp_path):
    args = [f"--model.policy.path={large}", *ON_GPUS, "--trainer.strategy=ddp", "--trainer.precision=bf16-mixed"]
    code, out, err = lit_rl("estimate", *args, "--memory", "140")
    assert code == 1 and "lit_rl:" not in err
    assert "7,615,616,512" in out and "8 x ddp*" in out and "--trainer.strategy fsdp2" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args, named",
    [
        (["--memory", "0"], "--memory is 0"),
        (["--memory", "much"], "--memory is much"),
        (["--trainer.accelerator", "gpu"], "--memory"),
        (["--memry", "80"], "--memry (did you mean --memory?)"),
        (["--model.sampels", "3"], "model.sampels is no setting of GRPO"),
        (["--model.max_new_tokens", "2040"], "model.max_new_tokens is 2040"),
        (["--trainer.devices", "3"], "data.prompts_per_iteration is 32"),
        (["--trainer.devices", "many"], "trainer.devices is many"),
        (["--data.rows_per_microbatch", "33"], "data.rows_per_microbatch"),
        (["--data.sampler", "VLLM", "--data.sampler.max_model_len", "200"], "data.sampler.max_model_len"),
        (["--model.policy", "TabularPolicy", "--data.task", "KeyToken"], "model.policy: TabularPolicy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_line(lit_rl, args, named):
    code, _, err = lit_rl("estimate", *args)
    [said] = [line for line in err.splitlines() if line.startswith("lit_rl: ")]
    assert code == 2 and named in said and "Traceback" not in err


def test_help(lit_rl):
    code, out, _ = lit_rl("estimate", "--help")
    assert code == 0 and "--memory GIB" in out and json.dumps("arguments of fit")[1:-1] in out


@pytest.mark.parametrize("name", QWEN)
def test_the_worked_examples_are_what_the_commands_print(lit_rl, models, monkeypatch, name):
    monkeypatch.chdir(models)
    for command, shown in re.findall(
        r"^    python -m lit_rl (estimate [^\n]+)\n\n```text\n(.+?)^```", PAGE, re.M | re.S
    ):
        if f"./{name} " in command:
            assert lit_rl(*command.split())[1] == shown
            return
    raise AssertionError("the page has no such example")
