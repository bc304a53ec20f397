"""What the README shows runs, and its links lead somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_first_example_runs():
    example = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)[1]
    names = {}
    exec(compile(example, "README.md", "exec"), names)  # our own file
    assert names["tree"].sum(2)[:, 1:].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert (names["scores"].grad != 0).any()
