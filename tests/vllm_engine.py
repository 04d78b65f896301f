"""The sampler over vLLM itself, on a CPU: ``make vllm``, in an environment of its own; not in ``make test``."""

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch
from conversations import sampled
from families import PROMPTS, encode
from test_turns import contents

from lit_rl.errors import UsageError
from lit_rl.functional.cuts import Stride, Turns
from lit_rl.policy import CausalPolicy
from lit_rl.policy.causal import DATA
from lit_rl.sampling import VLLM, LocalSampler, SamplingPlan

PLAN = SamplingPlan(samples=3, greedy=True, temperature=0.8, max_new_tokens=40)
STREAMS = [(7, i) for i in range(len(PROMPTS))]
SHARE = 0.03  # of the machine's memory
MODELS = {"embedded-mid": "embedded-mid", "SmolLM2": str(DATA / "smollm2")}
MOST = 1e-4  # that log-probabilities differ by in float32


@pytest.fixture(scope="module", params=MODELS)
def known(request):
    """A policy and its engine."""
    if request.param == "SmolLM2" and not (DATA / "smollm2" / "model.safetensors").exists():
        pytest.skip("make smollm2")
    return CausalPolicy(MODELS[request.param]), VLLM(memory_share=SHARE)


@pytest.fixture(scope="module")
def mid():
    return CausalPolicy("embedded-mid"), VLLM(memory_share=SHARE)


def greedy_of(rollouts):
    rows = (~rollouts.trained & (rollouts.origin < 0)).nonzero().squeeze(1).tolist()
    return [rollouts.response_ids[row, : rollouts.lengths[row]].tolist() for row in rows]


@torch.no_grad()
def differences(policy, rollouts, temperature):
    """log pi_sampler - log pi of the tokens that were drawn."""
    drawn = rollouts.mask & ~(~rollouts.trained & (rollouts.origin < 0))[:, None]  # no greedy ones
    return (rollouts.sampler_logprobs - policy(rollouts, temperature))[drawn]


def moved(policy, by=0.02):
    """The policy behind a large step."""
    other = copy.deepcopy(policy)
    generator = torch.Generator().manual_seed(0)
    for parameter in other.parameters():
        parameter.data += by * parameter.data.std() * torch.randn(parameter.shape, generator=generator)
    return other


def test_responses_are_the_policys_before_and_after_an_update(known):
    policy, sampler = known
    for each in (policy, moved(policy)):
        rollouts = sampler.sample(each, encode(each), PLAN, STREAMS)
        found = differences(each, rollouts, PLAN.temperature)
        print(f"{len(found)} tokens: largest difference {float(found.abs().max()):.1e}")
        assert float(found.abs().max()) < MOST and len(found) > 50
        last = rollouts.response_ids.gather(1, rollouts.lengths[:, None] - 1).squeeze(1)
        assert torch.equal(~rollouts.truncated, torch.isin(last, each.stop_ids))
    local = LocalSampler().sample(policy, encode(policy), PLAN, STREAMS)
    again = sampler.sample(policy, encode(policy), PLAN, STREAMS)
    assert greedy_of(again) == greedy_of(local)


def test_a_row_is_of_its_own_stream_and_nobodys_random_numbers_are_taken(mid):
    policy, sampler = mid
    plan = replace(PLAN, cuts=Stride(8), continuations=2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    whole = contents(sampler.sample(policy, encode(policy), plan, STREAMS))
    assert torch.equal(before, torch.get_rng_state())
    part = contents(sampler.sample(policy, encode(policy)[1:], plan, STREAMS[1:]))
    assert part == {(key[0] - 4, *key[1:]): value for key, value in whole.items() if key[0] >= 4}
    assert any(len(key) == 3 for key in part)


def test_first_tokens_have_the_policys_frequencies(mid):
    """4,000 samples of one token: every frequency within 4.5 standard errors of its probability."""
    policy, sampler = mid
    prompts, plan = encode(policy, PROMPTS[:1]), SamplingPlan(samples=4000, max_new_tokens=1, temperature=1.5)
    rollouts = sampler.sample(policy, prompts, plan, [(3,)])
    with torch.no_grad():
        p = (policy.model(input_ids=torch.tensor(prompts)).logits[0, -1] / 1.5).softmax(-1)
    counts = torch.bincount(rollouts.response_ids[:, 0], minlength=len(p))
    error = (p * (1 - p) / 4000).sqrt().clamp(min=1 / 4000)
    assert ((counts / 4000 - p).abs() < 4.5 * error).all()


def test_continuations_find_their_prefixes_in_the_cache(mid):
    policy, sampler = mid
    question = " ".join([PROMPTS[1]] * 3)  # some blocks long
    plan = SamplingPlan(samples=4, cuts=Stride(8), continuations=2, max_new_tokens=64)
    rollouts = sampler.sample(moved(policy, 0.001), encode(policy, [question]), plan, [(1,)])
    forked = rollouts.origin >= 0
    assert forked.any() and float(differences(moved(policy, 0.001), rollouts, 1.0).abs().max()) < MOST
    print(f"share of requests' tokens in the prefix cache: {rollouts.prefix_hits:.2f}")
    assert rollouts.prefix_hits > 0.5


def test_adapters_are_merged_in(mid):
    _, sampler = mid
    policy = CausalPolicy("embedded-mid", lora_rank=4)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    rollouts = sampler.sample(policy, encode(policy), PLAN, STREAMS)
    assert float(differences(policy, rollouts, PLAN.temperature).abs().max()) < MOST


def test_environments_speak_between_turns(mid):
    policy, sampler = mid
    policy = copy.deepcopy(policy)
    policy.stop_ids = torch.tensor([1, *range(20, 60)])
    plan = replace(PLAN, cuts=Turns(), continuations=2)
    rollouts, local = contents(sampled(policy, plan, sampler)), contents(sampled(policy, plan))
    assert [rollouts[key] for key in ((3,), (7,), (11,))] == [local[key] for key in ((3,), (7,), (11,))]
    assert any(any(row.spoken) for row, _ in rollouts.values()) and any(len(key) == 3 for key in rollouts)


def test_in_bfloat16_both_disagree(mid):
    """The trainer in bf16-mixed, the engine in bfloat16: the number that the documentation quotes."""
    policy, _ = mid
    plan = SamplingPlan(samples=16, max_new_tokens=64)
    with torch.autocast("cpu", torch.bfloat16):
        rollouts = VLLM(memory_share=SHARE).sample(policy, encode(policy), plan, STREAMS)
        found = differences(policy, rollouts, 1.0)
    print(f"{len(found)} tokens: kl {float(found.mean()):.1e}, largest ratio {float((-found).max().exp()):.2f}")
    assert 1e-5 < float(found.abs().mean()) < 0.05


def test_a_model_that_vllm_cannot_serve_is_a_line():
    policy = CausalPolicy()  # whose heads are too small for its attention on a CPU
    with pytest.raises(UsageError, match=r"^data\.sampler: ") as error:
        VLLM(memory_share=SHARE).sample(policy, encode(policy), PLAN, STREAMS)
    print(error.value)
    assert len(str(error.value)) < 600 and "\n" not in str(error.value)


RUN = ["--data.sampler=VLLM", f"--data.sampler.memory_share={SHARE}", "--model.policy.path=embedded-mid"]
SMALL = ["--data.prompts_per_iteration=8", "--data.rows_per_microbatch=4", "--data.eval_prompts=8"]
# rewards that differ, where nothing is solved, and large steps: an engine with the weights of before is far off
MOVING = ["--reward.overlong=32", "--model.learning_rate=3e-4"]
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--model.max_new_tokens=32"]


def lit_rl(folder: Path, *args: str) -> mlflow.entities.Run:
    """The MLflow run of a command."""
    command = [sys.executable, "-m", "lit_rl", *args]
    done = subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    [run] = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return run


def check_probabilities(metrics: dict[str, float]) -> None:
    """That the engine has the weights of the last iteration, which are not those of the first."""
    assert abs(metrics["policy/kl"]) > 1e-2  # nats a response
    assert abs(metrics["sampler/kl"]) < 1e-5 and abs(metrics["sampler/ratio_max"] - 1) < 1e-3


@pytest.mark.parametrize("model", [["GRPO", "--model.correct_sampler=truncated"], ["TRePO", "--model.samples=2"]])
def test_it_trains_and_evaluates(tmp_path, model):
    name, *more = model
    fit = ["fit", f"--model={name}", *more, *RUN, *SMALL, *MOVING, *QUIET, "--trainer.max_epochs=2"]
    run = lit_rl(tmp_path, *fit, "--trainer.check_val_every_n_epoch=2")
    metrics = run.data.metrics
    print(name, {key: value for key, value in metrics.items() if key.startswith(("sampler/", "time/", "tokens/"))})
    check_probabilities(metrics)
    assert (metrics["sampler/prefix_hits"] > 0) == (name == "TRePO")  # prompts of less than a block
    assert {"val/accuracy", "val/accuracy_sampled"} <= set(metrics)


def test_each_of_two_processes_has_an_engine(tmp_path):
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=2", "--trainer.limit_val_batches=0"]
    check_probabilities(lit_rl(tmp_path, "fit", "--model=RLOO", *RUN, *SMALL, *MOVING, *QUIET, *two).data.metrics)
