"""A layer that has seen one batch."""

import pytest
import torch
from torch import nn

import beamlora_mini as bl


@pytest.fixture
def adapted():
    """(model, its layer of four ranks, the batch, the gradient of the layer's output)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5))
    layer = bl.attach(model, bl.LoRA(r=4))["0"]
    nn.init.normal_(layer.lora_B)
    x, grad = torch.randn(9, 7), torch.randn(9, 5)
    layer(x).backward(grad)
    return model, layer, x, grad
