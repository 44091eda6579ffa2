"""The loss is on the answer alone."""

import torch
from torch import nn

from beamlora_mini.batches import collate, encode_answers, encode_prompts
from beamlora_mini.loss import answer_loss


def test_the_loss_is_on_the_answer_alone_and_equals_transformers(tiny, task):
    model, tokenizer = tiny
    rows = task["train"].select(range(7))
    prompts, answers = (
        encode_prompts(tokenizer, rows["prompt"]),
        encode_answers(tokenizer, rows["answer"]),
    )
    batch = collate(list(zip(prompts, answers)), tokenizer.pad_token_id, model.device)
    assert int((batch["labels"] != -100).sum()) == sum(map(len, answers))
    assert all(ids[-1] == tokenizer.eos_token_id for ids in answers)
    torch.testing.assert_close(answer_loss(model, batch), model(**batch).loss)


def test_a_model_without_logits_to_keep_has_the_same_loss(tiny):
    class Plain(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, use_cache):
            return self.model(input_ids, attention_mask, use_cache=use_cache)

    model, tokenizer = tiny
    batch = collate([([5, 6, 7], [8, 9]), ([5], [6])], tokenizer.pad_token_id, model.device)
    torch.testing.assert_close(answer_loss(Plain(model), batch), answer_loss(model, batch))


def test_without_labels_the_loss_is_nothing_and_so_is_its_gradient(tiny):
    model, tokenizer = tiny
    batch = collate([([5, 6, 7], [8, 9]), ([5], [6])], tokenizer.pad_token_id, model.device)
    loss = answer_loss(model, batch | {"labels": torch.full_like(batch["labels"], -100)})
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)
