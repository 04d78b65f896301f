"""A colour for each arm: an algorithm has the same one in every study, figure and chart."""

from ablations.study import Study

# Okabe and Ito's colours, which the colour-blind tell apart, and others, some of which they don't; names as in studies
ALGORITHMS = {
    "REINFORCE": "#E69F00",
    "RLOO": "#000000",
    "ReMax": "#CC79A7",
    "GRPO": "#0072B2",
    "Dr.GRPO": "#5C9BC4",
    "GSPO": "#7755FF",
    "CISPO": "#EEBB99",
    "RLZVP": "#0000FF",
    "REINFORCEPlusPlus": "#772200",
    "P3O": "#999933",
    "OptimalBaseline": "#44AA99",
    "PPO": "#009E73",
    "PPO, pretrained": "#00563F",
    "TRePO": "#D55E00",
    "TRePO, linear_advantage": "#882255",
    "OnlineDPO": "#56B4E9",
    "online DPO": "#56B4E9",
    "offline DPO": "#A6D8F5",
    "RTO": "#AA4499",
    "ABC": "#332288",
    "exact advantages": "#888888",
    "supervised": "#B5A642",
    "start": "#555555",
    "warm_start": "#555555",
}
OTHERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # of arms with names of their own
TINTS = (0.0, -0.5, 0.35, -0.25, 0.55, -0.75)  # of an algorithm's variants: to white above 0, to black below
DASHES = ("-", "--", ":", "-.")


def label(study: Study, arm: str) -> str:
    """The arm's name within its task."""
    return arm.removesuffix(", frozen").removeprefix(study.arm(arm).task).strip()


def colours(study: Study) -> dict[str, str]:
    """By arm; arms of different tasks that have one label have one colour."""
    return {arm: _tinted(colour, TINTS[n % len(TINTS)]) for arm, (colour, n) in _variants(study).items()}


def dashes(study: Study) -> dict[str, str]:
    """By arm: a solid line for an algorithm, others for its variants."""
    return {arm: DASHES[n % len(DASHES)] for arm, (_, n) in _variants(study).items()}


def _variants(study: Study) -> dict[str, tuple[str, int]]:
    """The colour of an arm's algorithm, and the how many-th of its variants in the study the arm is."""
    seen: dict[str, list[str]] = {}
    found = {}
    labels = {label(study, arm) for arm in study.arm_names}
    taken = {ALGORITHMS[_algorithm(each)] for each in labels if _algorithm(each)}
    free = [colour for colour in OTHERS if colour not in taken] or list(OTHERS)
    for arm in study.arm_names:
        own = label(study, arm)
        algorithm = _algorithm(own)
        names = seen.setdefault(algorithm, [algorithm] if algorithm in labels else [])
        if own not in names:
            names.append(own)
        n = names.index(own)
        found[arm] = (ALGORITHMS[algorithm], n) if algorithm else (free[n % len(free)], n // len(free))
    return found


def _algorithm(own: str) -> str:
    """The longest name of an algorithm that a label begins with; empty if it begins with none."""
    whole = [name for name in ALGORITHMS if own == name or own.startswith((f"{name},", f"{name} "))]
    return max(whole, key=len, default="")


def _tinted(colour: str, tint: float) -> str:
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    mixed = [round(part + (255 - part) * tint if tint > 0 else part * (1 + tint)) for part in parts]
    return "#" + "".join(f"{part:02X}" for part in mixed)
