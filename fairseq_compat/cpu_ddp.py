"""Fault: ``--cpu --ddp-backend pytorch_ddp`` stops: device_ids "only work with" modules on a GPU.

fairseq always passes ``device_ids=[0]``; torch's DistributedDataParallel wants None for a module on the CPU.
"""

import functools
import inspect

from fairseq.models import distributed_fairseq_model


def fix() -> bool:
    """Leave ``device_ids`` and ``output_device`` out when all parameters are on the CPU."""
    if "device_ids=[args.device_id]" not in inspect.getsource(distributed_fairseq_model):
        return False
    wrap = distributed_fairseq_model.DistributedDataParallel

    @functools.wraps(wrap, updated=())
    def on_any_device(module, *, device_ids, output_device, **options):
        if all(parameter.device.type == "cpu" for parameter in module.parameters()):
            device_ids = output_device = None
        return wrap(module, device_ids=device_ids, output_device=output_device, **options)

    distributed_fairseq_model.DistributedDataParallel = on_any_device
    return True
