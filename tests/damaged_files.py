"""Files as bad transfers, other tools and edits by hand leave them: what every reader is tried on."""

import gzip

from hypothesis import strategies as st

FRAGMENTS = [
    *(b"", b"\t", b" ", b"  ", b"\n", b"\n\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xe9", b"\xef\xbb\xbf"),
    *(b"#", b"_", b"-", b"=", b"|", b":", b".", b"+", b"0", b"1", b"9" * 5000, b"2-3", b"4.1", b"-DOCSTART-"),
    *(text.encode() for text in ("\u00a0", "\u2028", "\u3000", "\x0b", "\x1c", "\x85", "²", "٣", "<s>", "ß")),
]


@st.composite
def damaged(draw: st.DrawFn, content: bytes, *, zipped: bool = False) -> bytes:
    """``content`` with up to three pieces replaced, perhaps the line ends of Windows, and zipped if wanted.

    A zipped file is damaged before or after it is zipped, or cut off.
    """
    if draw(st.booleans()):
        content = content.replace(b"\n", b"\r\n")
    for _ in range(draw(st.integers(0, 3))):
        content = draw(_edited(content))
    if zipped:
        content = gzip.compress(content, mtime=0)
        if draw(st.booleans()):
            content = draw(_edited(content))
        content = content[: draw(st.integers(0, len(content)) | st.just(len(content)))]
    return content


@st.composite
def _edited(draw: st.DrawFn, content: bytes) -> bytes:
    start = draw(st.integers(0, len(content)))
    end = start + draw(st.integers(0, 3) | st.integers(0, 60))
    return content[:start] + draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=3)) + content[end:]
