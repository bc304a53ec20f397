"""How many cases a property is tried on: few in each run, many with HYPOTHESIS_PROFILE=explore."""

import os

EXPLORES = os.environ.get("HYPOTHESIS_PROFILE") == "explore"


def cases(few: int, many: int) -> int:
    """``few``, or ``many`` in a run that explores."""
    return many if EXPLORES else few
