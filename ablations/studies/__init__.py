"""The studies, by name: a file a study, of what ``parts.py`` has.

They may import a study's definition alone. Begin with ``quickstart.py``.
"""

import difflib

from ablations.studies import (
    all_algorithms,
    binary_math,
    binary_math_larger,
    position_credit,
    quickstart,
    sampling_budget,
    sampling_budget_larger,
    wall_clock,
)
from ablations.study import Study
from lit_rl.errors import UsageError

STUDIES: dict[str, Study] = {
    study.key: study
    for study in (
        quickstart.STUDY,
        position_credit.STUDY,
        sampling_budget.STUDY,
        sampling_budget_larger.MID,
        sampling_budget_larger.SMALL,
        binary_math.STUDY,
        binary_math_larger.MID,
        binary_math_larger.SMALL,
        wall_clock.STUDY,
        all_algorithms.STUDY,
    )
}


def find(name: str, scale: str = "tiny") -> Study:
    """The study of that name and scale.

    Raises:
        UsageError: there is none.
    """
    scales = {study.scale: study for study in STUDIES.values() if study.name == name}
    if scale in scales:
        return scales[scale]
    if scales:
        raise UsageError(f"--scale {scale}: {name} has {', '.join(scales)}")
    names = list(dict.fromkeys(study.name for study in STUDIES.values()))
    near = difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(f"no study '{name}'{hint}; `python -m ablations list` names them: {', '.join(names)}")
