"""The exercises of the notebooks, one module each: `from beamlora_mini.exercises import nb00 as check`.

The files lie in notebooks/exercises; a wheel carries them in this folder.
"""

from pathlib import Path

_beside_the_notebooks = Path(__file__).resolve().parents[2] / "notebooks" / "exercises"
if _beside_the_notebooks.is_dir():
    __path__.append(str(_beside_the_notebooks))
