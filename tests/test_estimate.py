"""What ``estimate`` says, beside what is counted, saved by autograd, allocated and taken."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from lightning import Trainer
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

from benchmarks.footprint import arguments, compared
from lit_rl.algorithms import GRPO, PPO, RLOO, TRePO
from lit_rl.callbacks import Memory, RewardCallback
from lit_rl.commands.early import checked
from lit_rl.commands.estimate import estimated, shape
from lit_rl.data import TRAINER_DEFAULTS, RolloutDataModule
from lit_rl.errors import UsageError
from lit_rl.estimate.memory import activations, cached, held, phases, total
from lit_rl.estimate.mends import mended
from lit_rl.estimate.run import MicroBatch, count
from lit_rl.functional.cuts import Stride
from lit_rl.policy import TokenTransformer
from lit_rl.policy.causal import DATA
from lit_rl.policy.reading import read_states, takes_tree
from lit_rl.policy.tokens import TokenPolicy
from lit_rl.rollouts import Rollouts, response_mask
from lit_rl.sampling.cache import RowCache
from lit_rl.sampling.decoding import forward
from lit_rl.tasks import GSM8KStyle, KeyToken

MIB = 2**20
PAGE = (Path(__file__).parents[1] / "docs/estimate.md").read_text()
SIZES = ["--model.max_new_tokens=512", "--data.prompts_per_iteration=128"]
ON_GPUS = ["--trainer.accelerator=gpu", "--trainer.devices=8", *SIZES]


def of(*args, memory=1000.0):
    return estimated(checked(["fit", *args])[1:], memory)


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


# ---- against counting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, settings, flags",
    [
        (GRPO, {"samples": 4, "passes": 2}, {"rows_per_microbatch": 4}),
        (PPO, {}, {"rows_per_microbatch": 2}),
        (TRePO, {"samples": 2, "continuations": 3}, {"rows_per_microbatch": 8}),
        (TRePO, {"samples": 2, "cuts": Stride(5), "root": "continuations"}, {"rows_per_microbatch": 2}),
        (TRePO, {"samples": 2, "cuts": Stride(4), "reuse": True}, {"rows_per_microbatch": 16}),
    ],
)
def test_tokens_and_steps_are_those_of_an_iteration(make, settings, flags):
    task = KeyToken(length=16)  # no response ends early
    sizes = {"max_new_tokens": 16, **settings}
    algorithm = make(policy=TokenTransformer(task.vocabulary, 16, hidden_size=32, layers=1), **sizes)
    data = RolloutDataModule(task, prompts_per_iteration=4, **flags)
    options = {**TRAINER_DEFAULTS, "max_epochs": 1, "limit_val_batches": 0, "accelerator": "cpu"}
    without = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(**options, **without, callbacks=[RewardCallback()])
    trainer.fit(algorithm, datamodule=data)
    named = {name: value for name, value in sizes.items() if name != "cuts"}
    args = [f"--model.{name}={str(value).lower()}" for name, value in named.items()]
    if "cuts" in sizes:
        args += ["--model.cuts=Stride", f"--model.cuts.every={sizes['cuts'].every}"]
    args += [f"--data.{name}={value}" for name, value in flags.items()]
    task_args = ["--data.task=KeyToken", "--data.task.length=16", "--data.prompts_per_iteration=4"]
    counts = count(of(f"--model={make.__name__}", *task_args, *args).run)
    assert counts.sampled + counts.continued == data.generated
    assert (counts.continued, counts.prefilled) == (data.continued, data.prefilled)
    assert counts.steps == trainer.global_step and counts.trained == int(data.rollouts.trained.sum())


@pytest.mark.parametrize("make, name", [(RLOO, "RLOO"), (PPO, "PPO")])
def test_models_and_states_are_those_of_a_run(fit, make, name):
    trainer, _, _ = fit(make, callbacks=(Memory(),))
    kept = held(of(f"--model={name}").run, "one", 1)
    for part, metric in {"weights": "policy", "reference, frozen": "frozen", "optimizer": "optimizer"}.items():
        assert kept[part] / MIB == pytest.approx(float(trainer.callback_metrics[f"memory/{metric}"]), rel=1e-4)
    assert kept["critic"] / MIB == pytest.approx(float(trainer.callback_metrics.get("memory/critic", 0)), rel=1e-4)


def test_adapters_leave_the_rest_without_gradients(large):
    pytest.importorskip("peft")
    whole, adapters = (of(f"--model.policy.path={large}", *more).run for more in ([], ["--model.policy.lora_rank=8"]))
    assert adapters.frozen < 100 and adapters.trained < whole.trained / 100 and adapters.weights > whole.weights
    assert adapters.optimizer == pytest.approx(2 * adapters.trained, rel=1e-3)


# ---- against autograd and the cache -----------------------------------------------------------------------------


def llama(**sizes) -> TokenPolicy:
    config = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=160, num_hidden_layers=4, **sizes)
    return TokenPolicy(LlamaForCausalLM(config), 64, eos=False)


def rollouts(prompts: int, group: int, prompt: int, length: int) -> Rollouts:
    rows = prompts * group
    lengths = torch.full((rows,), length)
    return Rollouts(
        prompt_ids=torch.randint(64, (prompts, prompt)).repeat_interleave(group, 0),
        prompt_mask=torch.ones(rows, prompt, dtype=torch.bool),
        response_ids=torch.randint(64, (rows, length)),
        lengths=lengths,
        mask=response_mask(lengths, length),
        group=torch.arange(rows) // group,
        origin=torch.full((rows,), -1),
        cut=torch.zeros(rows, dtype=torch.long),
        trained=torch.ones(rows, dtype=torch.bool),
        truncated=torch.ones(rows, dtype=torch.bool),
        examples=[{}] * prompts,
    )


@pytest.mark.parametrize("keys", [4, 2])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_autograd_saves(keys, autocast, checkpointing):
    policy, saved = llama(num_attention_heads=4, num_key_value_heads=keys), {}
    own = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    assert takes_tree(policy.model)
    if checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})

    def pack(x):
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.autocast("cpu", enabled=autocast):
        read_states(policy.model.base_model, rollouts(3, 4, 24, 33))
    found = sum(len(each) for pointer, each in saved.items() if pointer not in own)
    run = replace(of("--data.task=KeyToken").run, model=shape(policy), autocast=autocast, checkpointing=False)
    batch = MicroBatch(12, 3, 24, 24, 32, True)
    if checkpointing:  # what a layer computes again is not among it
        assert found < 2 * activations(replace(run, checkpointing=True), batch) < activations(run, batch)
    else:
        casts = 2 * (run.model.linear - 64 * 64) * autocast  # of weights
        assert found - casts == pytest.approx(activations(run, batch), rel=0.05)


@pytest.mark.parametrize("prompt, length", [(20, 8), (10, 120)])
def test_caches_have_the_room_that_is_told(prompt, length):
    policy, rows = llama(num_attention_heads=4, num_key_value_heads=2), 3
    cache = RowCache(policy.model.config)
    with torch.no_grad():
        for step in range(length):
            ids = torch.zeros(1 if step == 0 else rows, prompt if step == 0 else 1, dtype=torch.long)
            mask = torch.ones(len(ids), prompt + step)
            forward(policy.model, cache, ids, mask, mask.long().cumsum(1)[:, -ids.shape[1] :] - 1)
            if step == 0:
                cache.batch_repeat_interleave(rows)
    found = sum(x.nbytes for layer in cache.layers for x in (layer._all_keys, layer._all_values))
    run = replace(of("--data.task=KeyToken").run, model=shape(policy), gpu=True, autocast=False)
    said = rows * cached(run, prompt, prompt + length - 1)
    assert found <= said <= found * (1 + 1 / run.model.layers)  # the last layer grows beside its old room


# ---- against runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["GRPO", "PPO", "TRePO"])
def test_memory_is_that_of_a_run(algorithm):
    """A process's peak varies by a tenth from run to run; `python -m benchmarks estimate` asks for more."""
    said, taken = compared(arguments("embedded", algorithm))
    assert taken / 1.3 <= said <= 1.3 * taken


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
