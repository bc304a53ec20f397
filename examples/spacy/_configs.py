"""Where the configs of these recipes are."""

from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"
