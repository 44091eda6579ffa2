"""Execute notebooks in place, with a bar that tells the time left: make notebooks.

python tools/run_notebooks.py notebooks/04_rank_budgets.ipynb ...
"""

import os
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

COMMAND = ["-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", "--log-level=WARN",
           "--ExecutePreprocessor.timeout=600", "--ExecutePreprocessor.record_timing=False",
           "--ExecutePreprocessor.store_widget_state=False"]  # fmt: skip
# What a cell draws of progress would be stored, and never be the same twice.
ENVIRONMENT = os.environ | {
    "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1",
    "BEAMLORA_WIDGETS": "off",  # a live widget that is stored is dead when the notebook is opened again
}  # fmt: skip


def main(paths: list[str]) -> int:
    for path in (bar := tqdm(paths)):
        bar.set_description(Path(path).stem)
        status = subprocess.call([sys.executable, *COMMAND, path], env=ENVIRONMENT)
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
