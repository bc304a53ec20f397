"""Setting up: uv installs what pip's settings say, or is not asked."""

import runpy
from pathlib import Path

import pytest

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "make_venv.py"))
NEWEST = ["--index-strategy", "unsafe-best-match"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", []),
        ("global.index-url='https://mirror/simple'\n", ["--default-index", "https://mirror/simple"]),
        ("install.extra-index-url='a b'\n", ["--index", "a", "--index", "b"]),
        (":env:.find-links='/wheels'\nglobal.timeout='9'\n", ["--find-links", "/wheels"]),
        ("global.constraint='/c.txt'\n", ["--constraint", "/c.txt"]),
    ],
)
def test_pips_settings_hold_for_uv(config, expected):
    assert TOOL["uv_options"](config) == NEWEST + expected


@pytest.mark.parametrize("setting", ["require-hashes='true'", "no-index='true'", "trusted-host='mirror'"])
def test_where_uv_does_not_know_them_pip_installs(setting):
    assert TOOL["uv_options"](f"global.timeout='9'\nglobal.{setting}\n") is None


def test_where_pip_cannot_list_its_settings_pip_installs():
    assert TOOL["uv_options"](None) is None
