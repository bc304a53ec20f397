"""Fault: under torchrun every process trains a model of its own, main branch and fairseq-fixed, not 0.12.2.

``infer_init_method`` there returns before it looks at what torchrun has set if fairseq counts one device, as
it does on the CPU: the processes do not know of each other and overwrite each other's checkpoints. With
``--distributed-world-size 2`` it would divide by the number of GPUs, which is none.
"""

import functools
import inspect
import os

import torch
from fairseq.distributed import utils

TORCHRUN = {"MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"}


def fix() -> bool:
    """Replace ``infer_init_method`` if it is the faulty one."""
    if "device_count()" not in inspect.getsource(utils._infer_torch_distributed_launch_init):
        return False
    utils.infer_init_method = heeding_torchrun(utils.infer_init_method)
    return True


def heeding_torchrun(faulty):
    """The function that asks the environment variables of torchrun before anything else."""

    @functools.wraps(faulty)
    def infer_init_method(cfg, force_distributed=False):
        settled = cfg.distributed_init_method is not None or cfg.tpu or cfg.pipeline_model_parallel
        if settled or not os.environ.keys() >= TORCHRUN:
            return faulty(cfg, force_distributed)
        cfg.distributed_init_method = "env://"
        cfg.distributed_world_size = int(os.environ["WORLD_SIZE"])
        cfg.distributed_rank = int(os.environ["RANK"])
        cfg.device_id = cfg.distributed_rank % max(1, torch.cuda.device_count())
        cfg.distributed_no_spawn = True  # torchrun has started the processes

    return infer_init_method
