"""An adapter that gets more ranks while it trains."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .layer import AdapterLayer


class BlockLayer(AdapterLayer):
    """y = W x + b + s B (E * (A x)), whose components lie in blocks, each a parameter of its own, so
    that an optimizer can take in later what was not there when it was made.

    Shapes: blocks_A[i] (k, in), blocks_B[i] (out, k), blocks_E[i] (k,). lora_A (r, in), lora_B
    (out, r), lora_E (r,): the blocks but the last, which is in reserve, put together; a gradient
    flows on to the blocks.
    """

    rank_axes: ClassVar = {}  # no tensor holds all of its ranks
    grows = ("blocks_A", "blocks_B", "blocks_E")

    def start(self) -> None:
        self.blocks_A, self.blocks_B, self.blocks_E = (nn.ParameterList() for _ in range(3))

    def add_block(
        self, k: int, e: float, std: float, generator: torch.Generator | None = None
    ) -> None:
        """Components with A, B ~ N(0, std^2), drawn on the CPU, and E = e."""
        like = self.blocks_A[0].detach() if len(self.blocks_A) else self.trained(torch.empty(0))
        A = std * torch.randn(k, self.in_features, generator=generator)
        B = std * torch.randn(self.out_features, k, generator=generator)
        E = torch.full((k,), e)
        for blocks, values in zip((self.blocks_A, self.blocks_B, self.blocks_E), (A, B, E)):
            blocks.append(nn.Parameter(values.to(like)))

    def grow(self, generator: torch.Generator | None = None) -> list[nn.Parameter]:
        """Make the reserve a block like the others and add a new one; returns `of_growth`."""
        raise NotImplementedError

    def of_growth(self, k: int) -> list[nn.Parameter]:
        """What the k-th growth, from 1, gave an optimizer to train: the E of what had been the
        reserve, A and B of the new one."""
        return [self.blocks_E[k], self.blocks_A[k + 1], self.blocks_B[k + 1]]

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """(A (r + k, in), B (out, r + k), E (r + k,)): all components, the reserve last."""
        if self.blocks_A[0].is_meta:
            raise ValueError(
                f"{type(self.method).__name__}: the blocks of an adapter are not in memory: allowed is a "
                "model that is not offloaded (accelerate does not look into a layer's lists)"
            )
        A, B, E = map(list, (self.blocks_A, self.blocks_B, self.blocks_E))
        return torch.cat(A), torch.cat(B, dim=1), torch.cat(E)

    def rank_weights(self) -> Tensor:
        return self.lora_E

    @property
    def lora_A(self) -> Tensor:
        return torch.cat(list(self.blocks_A)[:-1])

    @property
    def lora_B(self) -> Tensor:
        return torch.cat(list(self.blocks_B)[:-1], dim=1)

    @property
    def lora_E(self) -> Tensor:
        return torch.cat(list(self.blocks_E)[:-1])

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest) -> None:
        """Have as many blocks as the state. (An optimizer does not learn of them.)"""
        blocks = sum(key.startswith(f"{prefix}blocks_A.") for key in state_dict)
        while len(self.blocks_A) < blocks:
            self.grow(torch.Generator())  # the numbers will be overwritten
        super()._load_from_state_dict(state_dict, prefix, *rest)
