"""fairseq plugins of diffdecode: pass this folder to ``--user-dir``."""

import fairseq  # noqa: F401  (first: applying the fixes imports parts of it)

import fairseq_compat

fairseq_compat.apply()

# Tasks and models as well: fairseq imports those of a --user-dir only if nobody has imported the package yet.
from fairseq_plugins import criterions, models, scoring, tasks  # noqa: E402, F401
