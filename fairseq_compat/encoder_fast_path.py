"""Fault: ``RuntimeError: Mask Type should be defined`` in the Transformer encoder in eval mode, 0.12.2 only.

For inference 0.12.2 calls the private ``torch._transformer_encoder_layer_fwd``, whose arguments have changed
since, with copies of the layer's weights kept as eight further parameters. Those never get a gradient. Later
versions of fairseq removed both; so does this fix. Checkpoints with the copies still load.
"""

import functools

import torch
from fairseq.modules.transformer_layer import TransformerEncoderLayerBase

COPIES = [f"{part}_{kind}" for part in ("in_proj", "out_proj", "fc1", "fc2") for kind in ("weight", "bias")]


def fix() -> bool:
    """Build encoder layers without the fast path and without the copied parameters."""
    layer = TransformerEncoderLayerBase
    if "_load_from_state_dict" not in vars(layer):
        return False
    build = layer.__init__

    @functools.wraps(build)
    def __init__(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.can_use_fastpath = False
        for name in COPIES:
            delattr(self, name)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        for name in COPIES:
            state_dict.pop(prefix + name, None)
        torch.nn.Module._load_from_state_dict(self, state_dict, prefix, *args, **kwargs)

    layer.__init__ = __init__
    layer._load_from_state_dict = _load_from_state_dict
    return True
