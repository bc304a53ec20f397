"""Draw the README's picture: one sentence's parse before and after a classifier has trained the parser.

    python -m examples.spacy.demo                        # writes runs/spacy-toy
    python docs/draw_before_after.py runs/spacy-toy      # writes docs/_static/before_after.svg

The sentence is the first of the test part that was parsed wrongly before and is parsed rightly after.
"""

import sys
from html import escape
from pathlib import Path

import spacy
from spacy.tokens import Doc, DocBin

STEP, LEFT, LEVEL, TEXT = 104, 70, 26, 28
OUT = Path(__file__).parent / "_static" / "before_after.svg"
RIGHT_ARC, WRONG_ARC = "#2a6f97", "#c1121f"


def main() -> None:
    """Find the sentence, draw both parses of it, write the SVG."""
    runs = Path(sys.argv[1])
    before, after = (spacy.load(runs / name / "model-best") for name in ("start", "structured_st"))
    for gold in DocBin().from_disk(runs / "test.spacy").get_docs(before.vocab):
        parses = [nlp(Doc(nlp.vocab, words=[word.text for word in gold])) for nlp in (before, after)]
        wrong, right = (
            [word.i for word, true in zip(doc, gold) if word.head.i != true.head.i] for doc in parses
        )
        changed = [max(doc.cats, key=doc.cats.get) for doc in (*parses, gold)]
        if wrong and not right and changed[0] != changed[1] == changed[2]:
            break
    else:
        sys.exit("no sentence of the test part is parsed rightly only after training")
    rows = [
        row("before", changed[0], [word.text for word in gold], [word.head.i for word in parses[0]], wrong),
        row("after", changed[1], [word.text for word in gold], [word.head.i for word in parses[1]], []),
    ]
    OUT.write_text(svg(rows, words=len(gold)), encoding="utf-8")


def row(
    title: str, label: str, words: list[str], heads: list[int], wrong: list[int]
) -> tuple[list[str], int]:
    """One parse as SVG elements with its words at y = 0, and its height above them."""
    parts, top = [], 0
    for dependent, head in enumerate(heads):
        if head == dependent:
            continue
        height = LEVEL * (abs(head - dependent) + 0.6)
        top = max(top, height)
        start, end = (LEFT + STEP * position for position in (head, dependent))
        start += 7 if head < dependent else -7
        colour = WRONG_ARC if dependent in wrong else RIGHT_ARC
        path = f"M{start},-18 C{start},{-18 - height:.0f} {end},{-18 - height:.0f} {end},-18"
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<path d="M{end - 4},-24 L{end + 4},-24 L{end},-16 Z" fill="{colour}"/>')
    for position, word in enumerate(words):
        bold = ' font-weight="bold"' if heads[position] == position else ""
        parts.append(
            f'<text x="{LEFT + STEP * position}" y="0" text-anchor="middle"{bold}>{escape(word)}</text>'
        )
    parts.append(f'<text x="8" y="{TEXT}" fill="#555">{title}: class {escape(label)}</text>')
    return parts, int(top * 0.75) + 24


def svg(rows: list[tuple[list[str], int]], words: int) -> str:
    """Both parses, one above the other, on white."""
    parts, y = [], 0
    for elements, height in rows:
        y += height
        parts.append(f'<g transform="translate(0,{y})">' + "\n".join(elements) + "</g>")
        y += TEXT + 14
    width = 2 * LEFT + STEP * (words - 1)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}"'
    style = ' font-family="sans-serif" font-size="15">\n<rect width="100%" height="100%" fill="white"/>\n'
    return head + style + "\n".join(parts) + "\n</svg>\n"


if __name__ == "__main__":
    main()
