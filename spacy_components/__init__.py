"""spaCy components of diffdecode, found by spaCy through entry points."""

import os

import torch

# A forked worker (nlp.pipe with n_process > 1) inherits torch's thread pool without its threads, and waits
# for them for ever as soon as an operation is large enough to be shared out.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
