"""Parameter groups for what a model gets while it trains, each with a warm-up of its own."""

from __future__ import annotations

from torch import nn, optim


class LateGroups:
    """`count` parameter groups that fill one by one.

    They lie in the optimizer from the start, empty, with the options of the group that holds the
    parameter `like`, so that every learning-rate scheduler made afterwards counts them. A group's
    rate is the scheduler's; in the first `warmup` steps after it was filled it is lowered just for
    the optimizer's step, along a line from zero.

    done: optimizer steps so far, to be kept up to date; born: the step after which each group was
    filled. ValueError if a scheduler has counted the optimizer's groups already, or `like` is in
    none of them.
    """

    def __init__(self, optimizer: optim.Optimizer, count: int, warmup: int, like: nn.Parameter):
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper has no hooks
        if any("initial_lr" in group for group in optimizer.param_groups):
            raise ValueError(
                "optimizer: a learning-rate scheduler has counted its parameter groups already: "
                "allowed is one without; make the method's schedule first, then the scheduler"
            )
        own = [g for g in optimizer.param_groups if any(p is like for p in g["params"])]
        if not own:
            raise ValueError(
                "optimizer: it does not train the model's adapters: allowed is one made after attach"
            )
        self.optimizer, self.count, self.warmup = optimizer, count, warmup
        self.first = len(optimizer.param_groups)
        self.done, self.born = 0, []
        self._rates: list | None = None
        options = {key: value for key, value in own[0].items() if key != "params"}
        for _ in range(count):
            optimizer.add_param_group(options | {"params": []})
        optimizer.register_step_pre_hook(self._lower)
        optimizer.register_step_post_hook(self._restore)

    def fill(self, n: int, parameters: list[nn.Parameter]) -> None:
        """Put parameters that are new after step n into the next group."""
        self._groups()[len(self.born)]["params"] += parameters
        self.born.append(n)

    def _groups(self) -> list[dict]:
        return self.optimizer.param_groups[self.first : self.first + self.count]

    def _lower(self, *_) -> None:
        self._restore()  # a step that failed has left them lowered
        self._rates = [group["lr"] for group in self._groups()]
        for group, born in zip(self._groups(), self.born):
            age = self.done + 1 - born
            if age < self.warmup:
                group["lr"] = group["lr"] * age / self.warmup

    def _restore(self, *_) -> None:
        for group, rate in zip(self._groups(), self._rates or ()):
            group["lr"] = rate
        self._rates = None
