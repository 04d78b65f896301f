"""What the answer to token_information is made of: exact rows and differences, two bars a setting."""

import pytest
from made_up_cells import cell
from matplotlib.patches import Rectangle

from ablations.analysis import effects
from ablations.records.study_results import StudyResults
from ablations.report import effect_figure
from ablations.studies.token_information import KEY, SAMPLES, STUDY

NOISE = {("task's own", "last"): 4.0, ("task's own", "causal"): 3.0, ("reward model", "last"): 10.0}


def row(scalar: str, placement: str, samples: float) -> dict[str, str]:
    setting = {"task": KEY, "scalar": scalar, "placement": placement, "weighting": "to_go", "critic": "no critic"}
    return {**setting, "pair accuracy": "0.5", SAMPLES: str(samples), "holds": "yes", "disagreement": "0"}


EXACT = (*(row(*key, value) for key, value in NOISE.items()), row("stronger reward model", "last", 5.0))


def results(accuracies: dict[str, float]) -> StudyResults:
    cells = tuple(
        cell(f"{KEY} no critic, {name}", seed, accuracy + 0.01 * (seed % 3 - 1) * (name == "causal"))
        for name, accuracy in accuracies.items()
        for seed in (10, 11, 12)
    )
    return StudyResults(STUDY, False, cells, 0, EXACT)


def test_effects_are_factors_of_samples_and_differences_in_points():
    found = results({"last": 0.5, "causal": 0.6})
    assert effects.enumerated(found) == {
        "token information": {f"{KEY}, no critic": 0.75},
        "stronger scalar": {f"{KEY}, no critic": 0.5},
    }
    [(name, settings)] = effects.learned(found).items()
    [(setting, interval)] = settings.items()
    assert (name, setting) == ("token information", f"{KEY}, no critic")
    assert interval.mean > 0 and interval.low < interval.mean < interval.high
    assert "(no critic; below 1 is better): token information 0.75; stronger scalar 0.50" in effects.sentence(found)
    headings, only = effects.table(found).csv()
    assert only[:3] == [f"{KEY}, no critic", "0.75", "0.50"] and len(headings) == len(only)


@pytest.mark.parametrize("accuracies, panels", [({}, 2), ({"last": 0.5, "causal": 0.6}, 4)])
def test_the_figure_has_two_bars_a_setting(accuracies, panels):
    figure, caption = effect_figure.draw(results(accuracies))
    assert len(figure.axes) == panels and "Enumerated" in caption and ("Learned" in caption) == (panels == 4)
    bars = [each for each in figure.axes[0].patches if isinstance(each, Rectangle)]
    assert sorted(each.get_x() + each.get_width() for each in bars) == pytest.approx([0.5, 0.75])


def test_arms_of_an_effect_are_the_study_s():
    named = {
        arm for settings in effects.EFFECTS.values() for each in settings.values() for arm in each.arms + each.against
    }
    assert named <= set(STUDY.arm_names)
