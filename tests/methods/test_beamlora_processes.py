"""Two processes that see different batches make the same decisions, without a word between them."""

from datetime import timedelta

import torch
from torch import nn

import beamlora_mini as bl


def train_in_one_of_two(rank, folder):
    """One of two DDP processes: its own batches, its own state of torch's generator."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2,
        timeout=timedelta(minutes=2),
    )  # fmt: skip
    torch.set_num_threads(1)
    model, _ = bl.load_model("tiny", device="cpu")
    torch.manual_seed(0)
    method = bl.BeamLoRA(r=6, period=4, p_start=0.6, pairing="random")
    bl.attach(model, method)
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    schedule = method.schedule(model, optimizer, 12)
    torch.manual_seed(rank)
    events = []
    for n in range(1, 13):
        ids = torch.randint(3, 40, (2, 8))
        parallel(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        events += schedule.step(n)
        optimizer.zero_grad()
    parameters = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    torch.save((parameters, [tuple(event) for event in events]), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_decide_alike_without_a_word(tmp_path):
    torch.multiprocessing.spawn(train_in_one_of_two, (str(tmp_path),), nprocs=2)
    (first, events), (second, other_events) = (torch.load(tmp_path / f"{i}.pt") for i in range(2))
    assert events == other_events and events
    assert all(torch.equal(t, second[name]) for name, t in first.items())
