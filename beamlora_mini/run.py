"""`Run`: everything that changes from step to step, and the one order in which it does."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .checks import is_number, recorded, require, require_number, require_whole
from .events import RankEvent
from .layers import adapter_layers, attached_method, trainable_parameters, unwrap
from .layers.attach import remembered_parameters
from .methods import Method

LISTEN = 3  # steps after which adapters that got no gradient are named


class Run:
    """A model in training: its method, optimizer, learning rate, rank schedule and step number.

    In a loop of your own, after attach(model, method):

        run = Run(model.train(), steps=1000, lr=1e-3)
        for batch in batches:
            (loss_of(model, batch) + run.loss()).backward()  # k times a k-th of it, to accumulate
            events = run.update()

    The method is the one that the model carries, wherever in it the adapters sit; without adapters
    everything that requires a gradient is trained. AdamW, unless an optimizer is given, which then
    has to train all adapters and says the rates itself; they are multiplied by the method's
    `lr_factor`, whose warm-up is the fraction `warmup` of the steps. max_grad_norm: None for no
    clipping. scaler: a GradScaler, if the loss is scaled by one. settings: what else a resumed run
    must have in common.

    n: optimizer steps so far; lr: the rate of the next one.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        steps: int,
        lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        warmup: float = 0.05,
        max_grad_norm: float | None = 1.0,
        optimizer: torch.optim.Optimizer | None = None,
        scaler: torch.amp.GradScaler | None = None,
        settings: Mapping[str, Any] | None = None,
    ):
        steps = require_whole("steps", steps, 1)
        if optimizer is None:
            require_number("lr", lr, "a number above 0", above=0)
            require_number("weight_decay", weight_decay, "a number of at least 0", least=0)
        else:
            require(lr is None, "lr", lr, "None beside an optimizer, which has rates of its own")
        pair = isinstance(betas, tuple | list) and len(betas) == 2
        valid = pair and all(is_number(beta) and 0 <= beta < 1 for beta in betas)
        require(valid, "betas", betas, "two numbers in [0, 1)")
        require_number("warmup", warmup, "a fraction in [0, 1)", least=0, below=1)
        if max_grad_norm is not None:
            require_number("max_grad_norm", max_grad_norm, "None or a number above 0", above=0)
        self.model = unwrap(model)
        self.method = attached_method(self.model) or Method()
        self.n, self.steps = 0, steps
        self.max_grad_norm, self.scaler = max_grad_norm, scaler
        parameters = trainable_parameters(self.model)
        if not parameters:
            raise ValueError(
                "model has no parameter that requires a gradient: attach a method first"
            )
        lr, weight_decay, warmup = lr and float(lr), float(weight_decay), float(warmup)
        betas = float(betas[0]), float(betas[1])
        max_grad_norm = max_grad_norm and float(max_grad_norm)
        options = None if optimizer is None else _options_of(optimizer)
        if optimizer is None:
            assert lr is not None
            groups = self.method.parameter_groups(parameters, lr)
            optimizer = torch.optim.AdamW(
                groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=True
            )
        self._require_trained(optimizer)
        self.optimizer = optimizer
        optimizer.zero_grad()  # of whatever was computed before, or broke off
        # The schedule first: it may add parameter groups, which the learning rates then count.
        self.schedule = self.method.schedule(self.model, optimizer, steps)
        self.rate = self.method.lr_scheduler(optimizer, round(warmup * steps), steps)
        # All of A and B zero is an adapter that was pruned away, and can't learn.
        layers = self.schedule.layers.items()
        self._unheard = {n: la for n, la in layers if la.lora_A.any() or la.lora_B.any()}
        self._listened = 0
        of_method = {f"method.{name}": value for name, value in vars(self.method).items()}
        of_run = {
            "method": type(self.method).__name__, **of_method, "steps": steps, "lr": lr,
            "betas": betas, "weight_decay": weight_decay, "warmup": warmup,
            "max_grad_norm": max_grad_norm, "optimizer": options, "scaler": scaler is not None,
            **(settings or {}),
        }  # fmt: skip
        self.settings = {name: recorded(value) for name, value in of_run.items()}

    def _require_trained(self, optimizer: torch.optim.Optimizer) -> None:
        """ValueError if the optimizer leaves out a part of an adapter."""
        trained = {p for group in optimizer.param_groups for p in group["params"]}
        for name, layer in adapter_layers(self.model).items():
            for part, parameter in layer.named_parameters():
                if parameter.requires_grad and parameter not in trained:
                    raise ValueError(
                        f"optimizer: it does not train {name}.{part}: allowed is one made after attach "
                        "that trains all adapters"
                    )

    @property
    def lr(self) -> float:
        return float(self.rate.get_last_lr()[0])

    def loss(self) -> float | Tensor:
        """What the method adds to the training loss, 0.0 for most."""
        return self.schedule.loss()

    def update(self) -> list[RankEvent]:
        """One optimizer step with the gradients there are, and all that follows it. RuntimeError after
        the last of the run's steps."""
        if self.n == self.steps:
            raise RuntimeError(f"step {self.n + 1}: the run was made for steps={self.steps}")
        self.n += 1
        if self._unheard:
            self._listen()
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.max_grad_norm is not None:
            groups = self.optimizer.param_groups
            nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], self.max_grad_norm)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.schedule.gradient_scale = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        events = self.schedule.step(self.n) or []  # sees the rate that the step was made with
        self.rate.step()
        self.optimizer.zero_grad()
        return events

    def _listen(self) -> None:
        """In the first steps: which adapters the loss does not reach. Such a one learns nothing, and
        nobody would see."""
        for name, layer in list(self._unheard.items()):
            parameters = [p for n, p in layer.named_parameters() if not n.startswith("base.")]
            gradients = [p.grad for p in parameters if p.grad is not None]
            if any(gradient.any() for gradient in gradients):
                del self._unheard[name]
        self._listened += 1
        if self._unheard and (self._listened == LISTEN or self.n == self.steps):
            warnings.warn(
                f"{len(self._unheard)} of {len(self.schedule.layers)} adapters got no gradient in "
                f"{self._listened} steps, the first on {next(iter(self._unheard))!r}: the loss does not "
                "depend on their layers, and they learn nothing; choose other target_modules, unless "
                "they are experts that are rarely used",
                stacklevel=4,
            )
            self._unheard = {}

    # --- stopping and going on ---

    def tensors(self) -> dict[str, Tensor]:
        """{name: tensor} of all in the model that a step may change, by the names of its state_dict:
        what is trained, what adapters remember, buffers."""
        remembered = set(remembered_parameters(self.model).values())
        saved = self.model.state_dict(keep_vars=True)
        return {
            name: tensor
            for name, tensor in saved.items()
            if not isinstance(tensor, nn.Parameter) or tensor.requires_grad or tensor in remembered
        }

    def state_dict(self) -> dict:
        """All that going on needs, as copies."""
        state = {
            "settings": self.settings,
            "n": self.n,
            "tensors": {name: tensor.detach() for name, tensor in self.tensors().items()},
            "optimizer": self.optimizer.state_dict(),
            "rate": self.rate.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler and self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict) -> None:
        """Go on where the run that made `state` stood. Raises ValueError, with nothing changed, if
        it had other settings (by the name of the first that differs) or another model."""
        for name, value in self.settings.items():
            saved = state["settings"].get(name)
            if saved != value:
                raise ValueError(f"{name}={value!r}: the saved run was begun with {name}={saved!r}")
        self._check_tensors(state["tensors"])
        self.schedule.prepare(state["schedule"])
        unread = self.model.load_state_dict(state["tensors"], strict=False).unexpected_keys
        if unread:
            raise RuntimeError(f"the model takes no {unread[0]!r} under the name that it gave it")
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.rate.load_state_dict(state["rate"])
        self.schedule.load_state_dict(copy.deepcopy(state["schedule"]))
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.n = state["n"]
        torch.set_rng_state(state["random"])
        if state["cuda_random"] and len(state["cuda_random"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_random"])

    def _check_tensors(self, saved: Mapping[str, Tensor]) -> None:
        """ValueError for tensors of another model. What grows while it trains has other shapes, or is
        several, and is left to the layers."""
        own = self.tensors()
        places = {id(t): name for name, t in own.items()}
        growing = tuple(
            places[id(p)].removesuffix(name) + part
            for layer in adapter_layers(self.model).values()
            for name, p in layer.named_parameters()
            for part in layer.grows
            if name.startswith(part) and id(p) in places
        )

        def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple]:
            fixed = {n: t for n, t in tensors.items() if not (growing and n.startswith(growing))}
            return {n: tuple(t.shape) for n, t in fixed.items()}

        differing = shapes(own).items() ^ shapes(saved).items()
        if differing:
            name, shape = min(differing, key=str)
            raise ValueError(
                f"state: it is of another model: {len(differing)} tensors differ, the first is "
                f"{name!r} of shape {shape}"
            )


def _options_of(optimizer: torch.optim.Optimizer) -> str:
    """What tells one optimizer of the user's from another."""
    groups = [group | {"params": len(group["params"])} for group in optimizer.param_groups]
    return f"{type(optimizer).__name__} {groups}"
