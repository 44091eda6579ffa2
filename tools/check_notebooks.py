"""What a stored notebook of the series must be: executed in order, without errors and without widget state.

python tools/check_notebooks.py notebooks/*.ipynb    one line for each fault; the exit status says whether there is one
"""

import json
import sys
from pathlib import Path


def faults(notebook: dict) -> list[str]:
    """What is wrong with a notebook, given as its JSON; empty where nothing is."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in cells if "".join(cell["source"]).strip()]
    found = []
    if counts != list(range(1, len(counts) + 1)):
        found.append(
            f"executed as {counts}, not from top to bottom: run it again, from a new kernel"
        )
    for cell in cells:
        names = [o.get("ename") for o in cell["outputs"] if o["output_type"] == "error"]
        found += [f"cell [{cell['execution_count']}] stores a {name}" for name in names]
    if "widgets" in notebook["metadata"]:
        found.append("stores widget state: clear it, or save without it")
    return found


if __name__ == "__main__":
    lines = [
        f"{path}: {fault}"
        for path in sys.argv[1:]
        for fault in faults(json.loads(Path(path).read_text(encoding="utf-8")))
    ]
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(1 if lines else 0)
