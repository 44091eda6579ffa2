"""Draw the README's picture: python tools/hero.py, a minute. A BeamLoRA run of the tiny model, one layer's ranks."""

from pathlib import Path

import beamlora_mini as bl
from beamlora_mini.plots.river import busiest, river_figure
from beamlora_mini.plots.style import DPI

STEPS, RANK, PERIOD, TEMPERATURE, SEED = 300, 8, 40, 0.1, 0

if __name__ == "__main__":
    model, _ = bl.load_model("tiny", device="cpu")
    history = bl.RankHistory(every=5)
    method = bl.BeamLoRA(r=RANK, lora_alpha=2 * RANK, temperature=TEMPERATURE, period=PERIOD)
    bl.fit(model, "subtraction", method=method, steps=STEPS, lr=4e-3, seed=SEED, history=history)
    drawn, _ = river_figure(history, busiest(history))
    drawn.tight_layout()
    drawn.savefig(Path(__file__).parents[1] / "docs" / "rank_river.png", dpi=DPI)
