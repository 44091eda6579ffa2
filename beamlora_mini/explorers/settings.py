"""Settings of an arena: their defaults and what is allowed. settings.js has the same table."""

from __future__ import annotations

from typing import Any

from ..checks import is_number, is_whole, require, require_choice

METHODS = ("LoRA", "PiSSA", "MiLoRA", "DoRA", "ReLoRA", "AdaLoRA", "IncreLoRA", "BeamLoRA")
PATTERNS = ("circle", "corners", "stripes", "spiral")

COMMON: dict[str, Any] = {
    "method": "LoRA", "world": "matrix", "size": 16, "true_rank": 5, "noise": 0.05, "base": "circle",
    "pattern": "corners", "r": 6, "alpha": None, "lr": 0.02, "steps": 200, "batch": 32, "dead": 0,
    "switches": [], "seed": 0,
}  # fmt: skip
SMOOTHED: dict[str, Any] = {"target_r": None, "beta1": 0.85, "beta2": 0.85, "orth_reg_weight": 0.5}
OWN: dict[str, dict[str, Any]] = {
    "ReLoRA": {"merge_every": None, "restart_warmup": None},
    "AdaLoRA": SMOOTHED | {"tinit": None, "tfinal": None, "deltaT": 10},
    "IncreLoRA": SMOOTHED
    | dict.fromkeys(("top_h", "init_warmup", "incre_interval", "growth_warmup")),
    "BeamLoRA": {
        "temperature": 0.2, "period": None, "p_start": 0.8, "end_step": None, "snapshot_lag": None,
        "scope": "global", "max_prune_fraction": 0.5, "fill": "history",
    },
}  # fmt: skip
WHOLE = {
    "size": (2, 64),
    "r": (1, 64),
    "steps": (1, 5000),
    "batch": (1, 1024),
    "seed": (0, 2**32 - 1),
}
CHOICES = {
    "world": ("matrix", "plane"),
    "base": PATTERNS,
    "pattern": PATTERNS,
    "fill": ("history", "now", "fresh"),
}


def complete(**given: Any) -> dict[str, Any]:
    """All settings of a run: what is not given, or None, takes a default that suits the rest.
    ValueError, by name, for others; the method's own are checked by the method."""
    method = given.get("method", COMMON["method"])
    require_choice("method", method, METHODS)
    own = OWN.get(method, {})
    known = COMMON | own
    for name, value in given.items():
        require(name in known, name, value, f"a setting of {method}: {', '.join(known)}")
    settings = known | {name: value for name, value in given.items() if value is not None}
    for name, (least, most) in WHOLE.items():
        _whole(settings, name, least, most)
    for name, names in CHOICES.items():
        if name in settings:
            require_choice(name, settings[name], names)
    require(
        is_number(settings["noise"]) and settings["noise"] >= 0,
        "noise", settings["noise"], "a number of at least 0",
    )  # fmt: skip
    for step in settings["switches"]:
        require(is_whole(step, 1), "switches", settings["switches"], "a list of steps, from 1")
    _whole(settings, "true_rank", 1, settings["size"])
    _whole(settings, "dead", 0, 0 if method == "IncreLoRA" else settings["r"])
    defaults = _suiting(settings)
    return settings | {k: defaults[k] for k in defaults if settings[k] is None}


def _whole(settings: dict, name: str, least: int, most: int) -> None:
    value = settings[name]
    allowed = f"an integer from {least} to {most}"
    require(is_whole(value, least) and value <= most, name, value, allowed)


def _suiting(settings: dict) -> dict[str, Any]:
    """Defaults that depend on other settings."""
    r, steps, method = settings["r"], settings["steps"], settings["method"]
    suiting: dict[str, Any] = {"alpha": r}
    if method == "ReLoRA":
        every = settings["merge_every"] or max(1, steps // 4)
        suiting |= {"merge_every": every, "restart_warmup": min(5, every - 1)}
    elif method == "AdaLoRA":
        suiting |= {"target_r": max(1, r // 2), "tinit": steps // 10, "tfinal": max(1, steps // 2)}
    elif method == "IncreLoRA":
        suiting |= {"target_r": 2 * r}
    elif method == "BeamLoRA":
        period = settings["period"] or max(1, steps // 5)
        lag = 0 if settings["fill"] == "now" else period // 2
        end = max(1, 2 * steps // 3)
        suiting |= {"period": period, "end_step": end, "snapshot_lag": lag}
    return suiting
