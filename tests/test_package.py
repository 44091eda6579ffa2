"""The package itself: quick to import, and everything it promises is there."""

import subprocess
import sys

import beamlora_mini as bl


def test_importing_it_does_not_load_what_is_slow_to_load():
    """Measured at 0.06 s beside torch; any of these would multiply that."""
    code = (
        "import sys, torch, time; t = time.perf_counter(); import beamlora_mini\n"
        "slow = {'datasets', 'pandas', 'pyarrow', 'matplotlib', 'IPython', 'transformers', 'peft'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]", result.stdout


def test_every_promised_name_is_there():
    assert all(hasattr(bl, name) for name in bl.__all__)
    assert list(bl.METHODS) == [
        "lora", "pissa", "milora", "dora", "relora", "adalora", "increlora", "beamlora",
    ]  # fmt: skip
    assert callable(bl.fit) and callable(bl.evaluate)
