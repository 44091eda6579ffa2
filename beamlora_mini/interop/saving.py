"""What transformers models can't do while adapters are on, done rightly or refused."""

from __future__ import annotations

import functools
import sys
from typing import Any

from ..layers import AdapterLayer
from ..layers.attach import after_attach
from ..layers.targets import head_of
from .peft import save_adapter, save_for_trainer


def mind_adapters() -> None:
    """Let transformers' save_pretrained and resize_token_embeddings look for adapters first.

    The one would write names that from_pretrained does not know, which then makes up the projections
    anew: with adapters on it writes them, as a PEFT folder (see `save_adapter`), and for the Trainer,
    which hands over a state_dict, also what it resumes from. The other would put
    a new head in an adapted one's place, and is refused. Both look when they are called, so that it
    does not matter where in a model the adapters sit, which copy it is, and when they are taken off.
    """
    library: Any = sys.modules.get("transformers.modeling_utils")
    if library is None or hasattr(library.PreTrainedModel.save_pretrained, "minds_adapters"):
        return
    model = library.PreTrainedModel
    save, resize = model.save_pretrained, model.resize_token_embeddings

    @functools.wraps(save)
    def save_pretrained(self, save_directory, is_main_process=True, *args, **kwargs):
        if not any(isinstance(module, AdapterLayer) for module in self.modules()):
            return save(self, save_directory, is_main_process, *args, **kwargs)
        if kwargs.get("push_to_hub"):
            raise ValueError(
                "push_to_hub=True: the model carries adapters: allowed is False; save the folder, then "
                "upload it"
            )
        if is_main_process:
            save_adapter(self, save_directory)
            if "state_dict" in kwargs:
                save_for_trainer(kwargs["state_dict"] or self.state_dict(), save_directory)
        return None

    @functools.wraps(resize)
    def resize_token_embeddings(self, *args, **kwargs):
        if isinstance(head_of(self), AdapterLayer):
            raise RuntimeError(  # noqa: TRY004
                "resize_token_embeddings: the output head carries an adapter: resize first, then attach"
            )
        return resize(self, *args, **kwargs)

    setattr(save_pretrained, "minds_adapters", True)  # noqa: B010
    model.save_pretrained, model.resize_token_embeddings = save_pretrained, resize_token_embeddings


after_attach.append(mind_adapters)
