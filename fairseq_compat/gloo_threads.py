"""Fault: a run of several processes on the CPU now and then ends with exit code -6 after all its work.

DistributedDataParallel imports ``torch.distributed.nn.functional`` when it wraps its first model. By then the
process group is there, and that module's functions keep it as the default value of their argument ``group``:
``destroy_process_group`` frees nothing, gloo's threads outlive it, and C++ stops the process at exit with
"terminate called without an active exception". Imported before there is a group, the module keeps none.
"""

import sys
from importlib import import_module

from torch import distributed

MODULE = "torch.distributed.nn.functional"


def fix() -> bool:
    """Import the module in time, unless torch was built without it, or it is too late."""
    if MODULE in sys.modules or not distributed.is_available() or distributed.is_initialized():
        return False
    import_module(MODULE)
    return True
