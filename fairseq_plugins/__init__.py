"""fairseq plugins of diffdecode: pass this folder to ``--user-dir``."""

from importlib.util import find_spec

# Without fairseq there is nothing to register; commands say then how to install it.
if find_spec("fairseq"):
    import fairseq  # noqa: F401  (first: applying the fixes imports parts of it)

    import fairseq_compat

    fairseq_compat.apply()

    # Tasks and models as well: fairseq imports those of a --user-dir only if nobody has imported the package.
    from fairseq_plugins import criterions, models, scoring, tasks  # noqa: F401
