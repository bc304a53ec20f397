"""Fault: ``--valid-subset valid,valid1`` stops, because the named ``valid1`` "will be ignored".

fairseq compares the names of subsets with those of files, ``valid1.de-en.de``.
"""

import functools
import inspect

from fairseq.data import data_utils


def fix() -> bool:
    """Look for further subsets by the names that ``--valid-subset`` has for them."""
    find = data_utils._find_extra_valid_paths
    if "os.path.splitext" not in inspect.getsource(find):
        return False

    @functools.wraps(find)
    def subsets(dataset_path):
        return {path.partition(".")[0] for path in find(dataset_path)}

    data_utils._find_extra_valid_paths = subsets
    return True
