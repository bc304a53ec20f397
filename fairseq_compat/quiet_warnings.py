"""Fault: each command prints seven blocks of warnings about how fairseq calls hydra and torch.

A user can do nothing about them, and they hide warnings that matter. Only these are silenced, by their words
and, where that does not depend on who called, by the module that they are said in. Filters of the user
(``-W``, ``PYTHONWARNINGS``) come first: with ``-W always`` everything is shown.
"""

import warnings

KNOWN = (
    # (category, how the message begins, module)
    (UserWarning, r"hydra\.experimental\.\w+\(\) is no longer experimental", r"hydra\.experimental\."),
    (UserWarning, r"\s*The version_base parameter is not specified", r"hydra\.experimental\.initialize"),
    (UserWarning, r"\s*The strict flag in the compose API is deprecated", r"hydra\.compose"),
    (UserWarning, r"In 'config': Usage of deprecated keyword in package header", r"hydra\.core\."),
    (UserWarning, r"\s*'config' is validated against ConfigStore schema with the same name", ""),
    (FutureWarning, r"`torch\.cuda\.amp\.(autocast|GradScaler)\(args\.\.\.\)` is deprecated", r"fairseq\."),
    (UserWarning, r"'pin_memory' argument is set as true but no accelerator", r"torch\.utils\.data\."),
    (UserWarning, r"Support for mismatched (src_)?key_padding_mask and", r"torch\.nn\.functional"),
)


def fix() -> bool:
    """Leave out the known ones."""
    for category, message, module in KNOWN:
        warnings.filterwarnings("ignore", message, category, module, append=True)
    return True
