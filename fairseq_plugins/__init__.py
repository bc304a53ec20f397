"""fairseq plugins of diffdecode: pass this folder to ``--user-dir``."""

import fairseq_compat

fairseq_compat.apply()

# fairseq itself imports the files of ``tasks`` and ``models`` of a --user-dir, and nothing else.
from fairseq_plugins import criterions, scoring  # noqa: E402, F401
