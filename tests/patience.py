"""How long a test waits for another process before it says that the process hangs."""

HANGS_AFTER = 900  # seconds: some hundred times what any of them takes, for machines that are busy
