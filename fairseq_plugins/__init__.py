"""fairseq plugins of diffdecode: pass this folder to ``--user-dir``."""

# fairseq itself imports the files of ``tasks`` and ``models`` of a --user-dir, and nothing else.
from fairseq_plugins import scoring  # noqa: F401
