"""SoRA (Ding et al., arXiv 2311.11696): a trained gate on every rank, pulled to zero step by step."""

from dataclasses import dataclass

import torch

import beamlora_mini as bl


@dataclass(frozen=True)
class SoRA(bl.Method):
    """sparsity: how far each step pulls every gate towards zero, in learning rates."""

    sparsity: float = 0.1

    class Layer(bl.AdapterLayer):
        """y = W x + b + s B (g * (A x)), with a gate g (r,) that starts at one."""

        rank_axes = bl.AdapterLayer.rank_axes | {"gate": 0, "open": 0}

        def start(self):
            super().start()
            self.gate = self.trained(torch.ones(self.r))
            self.register_buffer("open", torch.ones_like(self.gate, dtype=torch.bool))

        def rank_weights(self):
            return self.gate

    class Schedule(bl.RankSchedule):
        @torch.no_grad()
        def step(self, n):
            pull = self.method.sparsity * self.optimizer.param_groups[0]["lr"]
            events = []
            for name, layer in self.layers.items():
                gate = layer.gate  # the proximal step of the l1 norm
                gate.copy_(gate.sign() * (gate.abs() - pull).clamp(min=0))
                closed = (layer.open & (gate == 0)).nonzero().flatten().tolist()
                layer.open.copy_(gate != 0)
                events += [bl.RankEvent(n, "prune", name, i) for i in closed]
            return events
