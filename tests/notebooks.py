"""Executes notebooks in this process, without Jupyter: ``python tests/notebooks.py FILE ...`` writes their outputs."""

import base64
import io
import json
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from PIL import Image


def read(path: Path) -> dict[str, Any]:
    """The notebook as it is."""
    return json.loads(path.read_text())


def executed(path: Path) -> dict[str, Any]:
    """The notebook with the outputs of its code: what cells print, and the figures that they leave open."""
    notebook = read(path)
    names: dict[str, Any] = {"__name__": "__main__"}
    with plt.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*non-interactive.*")  # nothing is shown, and figures stay open
        for number, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
            with redirect_stdout(io.StringIO()) as printed:
                exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
            cell["execution_count"], cell["outputs"] = number, []
            if text := printed.getvalue():
                lines = text.splitlines(keepends=True)
                cell["outputs"].append({"name": "stdout", "output_type": "stream", "text": lines})
            for figure in map(plt.figure, plt.get_fignums()):
                data = {"image/png": base64.b64encode(_png(figure)).decode(), "text/plain": [str(figure)]}
                cell["outputs"].append({"data": data, "metadata": {}, "output_type": "display_data"})
            plt.close("all")
    return notebook


def _png(figure: Any) -> bytes:
    """A small file, of 256 colours."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight")
    Image.open(drawn).convert("RGB").quantize(256).save(small, format="png", optimize=True)
    return small.getvalue()


def outputs(notebook: dict[str, Any]) -> tuple[str, list[bytes]]:
    """All that a notebook's cells have printed, and its figures (PNG)."""
    found = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    text = "".join("".join(each["text"]) for each in found if each["output_type"] == "stream")
    images = [each["data"]["image/png"] for each in found if "image/png" in each.get("data", {})]
    return text, [base64.b64decode(image) for image in images]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(json.dumps(executed(Path(name)), indent=1, ensure_ascii=False) + "\n")
        print(name)
