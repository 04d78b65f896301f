"""The studies, by name: a file a study, of what ``parts.py`` has.

They may import a study's definition alone. Begin with ``quickstart.py``. Studies outside the package are found by
``own.py``.
"""

import difflib

from ablations.studies import (
    all_algorithms,
    binary_math,
    binary_math_larger,
    decomposition,
    estimators,
    failure_signatures,
    multi_turn,
    natural_start,
    own,
    position_credit,
    quickstart,
    sampling_budget,
    sampling_budget_larger,
    token_information,
    wall_clock,
)
from ablations.study import SCALES, Study
from lit_rl.errors import UsageError

CERTIFICATE = "certificate"  # a study without runs

STUDIES: dict[str, Study] = {
    study.key: study
    for study in (  # in the order of the page of all answers
        quickstart.STUDY,
        natural_start.STUDY,
        binary_math.STUDY,
        binary_math_larger.MID,
        multi_turn.STUDY,
        position_credit.STUDY,
        decomposition.STUDY,
        sampling_budget.STUDY,
        sampling_budget_larger.MID,
        sampling_budget_larger.SMALL,
        estimators.STUDY,
        token_information.STUDY,
        wall_clock.STUDY,
        failure_signatures.STUDY,
        all_algorithms.STUDY,
    )
}


def find(name: str, scale: str | None = None) -> Study:
    """The study of that name and scale, the smallest that it has if None, or the one at that import path.

    Raises:
        UsageError: there is none, or it can't be loaded.
    """
    scales = {study.scale: study for study in STUDIES.values() if study.name == name}
    study = scales[min(scales, key=SCALES.index)] if scales else own.load(name, {*STUDIES, CERTIFICATE})
    if study is not None:
        scales = scales or {study.scale: study}
        if scale is None or scale in scales:
            return study if scale is None else scales[scale]
        raise UsageError(f"--scale {scale}: {name} has no such scale; choose from {', '.join(scales)}")
    names = list(dict.fromkeys(study.name for study in STUDIES.values()))
    near = difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(
        f"no study '{name}'{hint}, and no such module (your own goes by its import path, my_study for my_study.py); "
        f"`python -m ablations list` names them: {', '.join(names)}"
    )
