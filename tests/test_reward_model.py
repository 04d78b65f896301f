"""Reward models: what they read, what they learn, and training on them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning import seed_everything
from mlflow.tracking import MlflowClient
from torch.nn.functional import pad

from lit_rl.algorithms import ReMax
from lit_rl.callbacks import RewardCallback
from lit_rl.commands.fit_reward import Recipe, make
from lit_rl.errors import UsageError
from lit_rl.policy import RewardModel, TokenTransformer
from lit_rl.policy.reward_fitting import flip, from_policy, from_scratch, ordered_pairs, ties
from lit_rl.sampling import LocalSampler, SamplingPlan
from lit_rl.tasks import KeyToken
from lit_rl.tracking.address import tracking_uri

KEY = ["--data.task", "KeyToken", "--data.task.position", "3"]
KEY_POLICY = [*KEY, "--model.policy", "TokenTransformer", "--model.policy.hidden_size", "32"]
SMALL = ["--data.prompts_per_iteration=4", "--data.eval_prompts=4", "--model.samples=4", "--trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def rollouts(policy, task):
    """Eight responses of different lengths to four prompts of different lengths."""
    prompts = [policy.encode_prompt(example["prompt"]) for example in task.prompts("train").select([0, 3, 7, 11])]
    plan = SamplingPlan(samples=2, max_new_tokens=48)
    table = LocalSampler().sample(policy, prompts, plan, [(i,) for i in range(4)])
    assert len(table.lengths.unique()) > 2 and not table.prompt_mask.all()
    return table


@pytest.fixture(scope="module")
def model(policy):
    """A head with a scale that makes scores differ, on the embedded policy's trunk."""
    seed_everything(0, verbose=False)
    reward_model = from_policy(policy)
    torch.nn.init.normal_(reward_model.model.score.weight)
    return reward_model.requires_grad_(False)


def padded(rollouts):
    """The same rows in a wider table, with a real token where nothing is."""
    left, right = {"pad": (3, 0), "value": 7}, {"pad": (0, 5), "value": 7}
    return replace(
        rollouts,
        prompt_ids=pad(torch.where(rollouts.prompt_mask, rollouts.prompt_ids, 7), **left),
        prompt_mask=pad(rollouts.prompt_mask, (3, 0), value=False),
        response_ids=pad(torch.where(rollouts.filled, rollouts.response_ids, 9), **right),
        mask=pad(rollouts.mask, (0, 5), value=False),
    )


def tokens(rollouts, row):
    """A row's prompt and response without padding [1, tokens], and the length of the prompt."""
    prompt = rollouts.prompt_ids[row][rollouts.prompt_mask[row]]
    return torch.cat([prompt, rollouts.response_ids[row, : rollouts.lengths[row]]])[None], len(prompt)


def test_a_score_depends_on_neither_padding_nor_the_rows_beside_it(model, rollouts):
    scores = model(rollouts)
    assert scores.dtype == torch.float32 and scores.shape == (8,) and scores.std() > 0.1
    alone = torch.cat([model(rollouts.select(torch.tensor([row]))) for row in range(8)])
    torch.testing.assert_close(scores, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores, model(padded(rollouts)), atol=1e-4, rtol=1e-4)


def test_a_score_is_that_of_transformers_own_classifier(model, rollouts):
    theirs = [model.model(input_ids=tokens(rollouts, row)[0]).logits.item() for row in range(8)]
    torch.testing.assert_close(model(rollouts), torch.tensor(theirs), atol=1e-4, rtol=1e-4)


def test_attention_is_the_last_tokens_over_the_response(model, rollouts):
    attention = model.attention(rollouts)
    assert attention.shape == rollouts.response_ids.shape and not attention[~rollouts.filled].any()
    torch.testing.assert_close(attention.sum(1), torch.ones(8))
    wide = model.attention(padded(rollouts))
    assert not wide[:, -5:].any()
    torch.testing.assert_close(attention, wide[:, :-5], atol=1e-5, rtol=1e-4)
    for row in range(8):
        ids, prompt = tokens(rollouts, row)
        theirs = model.model(input_ids=ids, output_attentions=True).attentions[-1][0].mean(0)[-1, prompt:]
        own = attention[row, : len(theirs)]
        torch.testing.assert_close(own / own[0], theirs / theirs[0], atol=1e-4, rtol=1e-3)


def test_a_copied_trunk_is_the_policys_and_a_random_one_has_its_vocabulary(model, policy, rollouts):
    ids = tokens(rollouts, 0)[0]
    torch.testing.assert_close(model.model.base_model(ids)[0], policy.model.base_model(ids)[0], atol=1e-4, rtol=1e-4)
    small = from_scratch(policy, hidden_size=32, layers=1, heads=2)
    small.check(policy)
    assert small(rollouts).shape == (8,) and small.attention(rollouts).shape == rollouts.response_ids.shape


def test_pairs_are_ordered_and_ties_counted(rollouts):
    scored = replace(rollouts, rewards=torch.tensor([0.0, 1, 1, 1, 0.5, 0.2, 0, 0]))
    assert ordered_pairs(scored).tolist() == [[1, 0], [4, 5]] and ties(scored) == 2


def test_a_share_of_labels_is_flipped():
    labels = torch.rand(40)
    changed = flip(labels, 0.25, seed=0) != labels
    assert changed.sum() == 10
    torch.testing.assert_close(flip(labels, 1.0, seed=0), 1 - labels)
    assert torch.equal(flip(labels, 0.0, seed=0), labels)


def test_fitting_tells_responses_apart_unless_the_labels_are_noise():
    task, accuracy = KeyToken(position=3), {}
    for name, settings in {
        "pairs": {},
        "outcomes": {"objective": "outcomes", "start": "random", "hidden_size": 32, "layers": 2},
        "noise": {"label_noise": 0.5},
    }.items():
        seed_everything(0, verbose=False)
        policy = TokenTransformer(hidden_size=32, layers=2)
        recipe = Recipe("unused", prompts=256, eval_prompts=64, max_new_tokens=8, learning_rate=3e-3, **settings)
        reward_model, found = make(task, policy, recipe)
        accuracy[name] = found["val/pair_accuracy"]
        if name == "outcomes":
            assert found["val/outcome_accuracy"] > 0.95
    assert accuracy["pairs"] > 0.95 and accuracy["outcomes"] > 0.95 and accuracy["noise"] < 0.8


def test_fitting_stops_once_pairs_are_ranked_as_well_as_asked(capsys):
    found = {}
    for until in (0.6, 1.0):
        seed_everything(0, verbose=False)
        recipe = Recipe("unused", prompts=64, eval_prompts=64, max_new_tokens=8, epochs=6, until=until)
        _, found[until] = make(KeyToken(position=3), TokenTransformer(hidden_size=32, layers=2), recipe)
    err = capsys.readouterr().err
    assert 0.6 <= found[0.6]["val/pair_accuracy"] < found[1.0]["val/pair_accuracy"] < 1, found
    assert "after 6 epochs, below until 1; raise epochs or prompts" in err and "below until 0.6" not in err


def test_a_model_is_fitted_written_and_trained_on(lit_rl, tmp_path):
    fitted = ["--prompts", "64", "--eval_prompts", "16", "--epochs", "3", "--output", "made/rm"]
    code, out, err = lit_rl("fit-reward", *KEY_POLICY, *fitted)
    assert code == 0, err
    folder = tmp_path / "made" / "rm"
    assert list(folder.parent.iterdir()) == [folder]
    written = json.loads((folder / "reward_model.json").read_text())
    shown = float(re.search(r"val/pair_accuracy ([\d.]+)", out)[1])
    assert written["results"]["val/pair_accuracy"] == pytest.approx(shown, abs=1e-3)
    assert written["config"]["prompts"] == 64 and "label_noise" in (folder / "README.md").read_text()
    client = MlflowClient(tracking_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("reward_models").experiment_id])
    for name in ("train/loss", "val/pair_accuracy"):
        assert [point.step for point in client.get_metric_history(run.info.run_id, name)] == [1, 2, 3]

    scorer = ["--reward.model", "made/rm", "--data.rows_per_microbatch=8", "--trainer.max_epochs=2"]
    code, _, err = lit_rl("fit", "--model", "ReMax", *KEY_POLICY, *scorer, *SMALL)
    assert code == 0, err
    (run,) = client.search_runs([client.get_experiment_by_name("lit_rl").experiment_id])
    values = run.data.metrics
    assert 0 <= values["train/task_score"] <= 1 and values["train/task_score"] != values["train/reward"]
    (last,) = tmp_path.glob("mlruns/checkpoints/*/*/checkpoints/last.ckpt")
    names = torch.load(last, weights_only=False)["state_dict"]
    trained = TokenTransformer(hidden_size=32).state_dict()
    assert {name.removeprefix("policy.") for name in names if name.startswith("policy.")} == set(trained)
    assert not any("score" in name or "reward" in name for name in names)
    assert lit_rl("fit-reward", *KEY, *fitted)[0] == 2  # it is there already


def test_saved_and_loaded_it_scores_probes_too_as_before(model, fit, tmp_path):
    model.model.save_pretrained(tmp_path / "rm")
    seen = []

    class Look(RewardCallback):
        def on_train_epoch_start(self, trainer, pl_module):
            super().on_train_epoch_start(trainer, pl_module)
            seen.append(trainer.datamodule.rollouts)

    # a later callback's scores replace the fixture's
    fit(ReMax, callbacks=(Look(model=str(tmp_path / "rm")),), samples=2)
    (rollouts,) = seen
    assert (~rollouts.trained).any()
    torch.testing.assert_close(rollouts.rewards, model(rollouts), atol=1e-4, rtol=1e-4)
    fit(ReMax, callbacks=(Look(model=str(tmp_path / "rm"), probability=True),), samples=2)
    torch.testing.assert_close(seen[1].rewards, model(seen[1]).sigmoid(), atol=1e-4, rtol=1e-4)


def test_what_can_not_score_the_policy_is_refused(policy, rollouts, tmp_path):
    with pytest.raises(UsageError, match=r"reward\.scorer and reward\.model are both set"):
        RewardCallback(scorer=lambda example, ids, text: 0.0, model="somewhere")
    with pytest.raises(UsageError, match=r"reward\.probability is for a reward model"):
        RewardCallback(probability=True)
    policy.model.save_pretrained(tmp_path / "causal")
    with pytest.raises(UsageError, match=r"reward\.model: '.*causal' is no reward model"):
        RewardModel.load(str(tmp_path / "causal"))
    other = TokenTransformer()
    with pytest.raises(UsageError, match=r"reward\.model has a vocabulary of 4"):
        from_policy(other).check(policy)
    short = from_policy(policy)
    short.model.config.max_position_embeddings = 8
    with pytest.raises(UsageError, match=r"reward\.model has 8 positions"):
        short(rollouts)


@pytest.mark.parametrize(
    "args, named",
    [
        (["fit", "--reward.model", "./nowhere"], "reward.model: no folder './nowhere'"),
        (["fit-reward"], "output"),
        (["fit-reward", "--output", "."], "output: . is there already"),
        (["fit-reward", "--output", "x", "--samples", "1"], "samples is 1"),
        (["fit-reward", "--output", "x", "--label_noise", "2"], "label_noise is 2"),
        (["fit-reward", "--output", "x", "--objective", "pears"], "objective"),
        (["fit-reward", "--output", "x", "--layers", "2"], "layers is only for start random"),
        (["fit-reward", "--output", "x", "--start", "random", "--heads", "5"], "hidden_size is 96, heads 5"),
        (["fit-reward", "--output", "x", "--data.task", "KeyTokn"], "did you mean KeyToken?"),
        (["fit-reward", "--output", "x", "--max_new_tokens", "2040", "--prompts", "4"], "max_new_tokens is 2040"),
        (["fit-reward", "--output", "x", *KEY, "--model.policy", "TabularPolicy"], "set start random"),
        (["fit-reward", "--output", "x", *KEY, "--prompts", "1", "--samples", "2"], "samples is 2: no two"),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:]) if isinstance(value, list) else "",
)
def test_mistakes_get_one_line_and_exit_code_2(lit_rl, args, named):
    code, _, err = lit_rl(*args)
    said = [line for line in err.splitlines() if line.startswith("lit_rl: ")]
    assert code == 2 and len(said) == 1 and named in said[0] and "Traceback" not in err
    assert not Path("x").exists()
