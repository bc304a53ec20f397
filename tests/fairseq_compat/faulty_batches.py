"""A stand-in for the ``batch_by_size`` of fairseq's main branch and of fairseq-fixed, which loses sentences.

As a script, ``python faulty_batches.py fixed|faulty <arguments of fairseq-generate>``, it translates with it.
"""

import sys

from fairseq.data import data_utils

sound = data_utils.batch_by_size


def batch_by_size(indices, *args, required_batch_size_multiple=1, fixed_shapes=None, **kwargs):
    """The sound batches without the last one, under the condition of the faulty function."""
    kwargs |= {"required_batch_size_multiple": required_batch_size_multiple, "fixed_shapes": fixed_shapes}
    b = sound(indices, *args, **kwargs)
    incomplete = required_batch_size_multiple > 1 and len(b[-1]) % required_batch_size_multiple != 0
    if fixed_shapes is None and incomplete:
        b = b[:-1]
    return b


if __name__ == "__main__":
    from fairseq_cli import generate

    from fairseq_compat import complete_batches

    data_utils.batch_by_size = batch_by_size
    if sys.argv.pop(1) == "fixed" and not complete_batches.fix():
        sys.exit("the fix does not see the fault")
    generate.cli_main()
