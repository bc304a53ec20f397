"""Samples of trees head by head: each from its marginals given the heads so far (see ``reference``).

For walks that ``sampling.sample_arborescence`` has given up. Trees that are drawn at the same time take
their next heads together.
"""

import numpy as np

from diffdecode.structure.kernels.numba.matrix_tree import matrix_tree_in_logs
from diffdecode.structure.kernels.threads import run_over_batch


def draw_word_by_word(scores, lengths, multi_root, states, given_up, heads) -> None:
    """Fill ``heads [S, B, N]``, which hold the root word alone, where ``given_up [S, B]``.

    ``scores [B, N+1, N+1]``; the streams of random numbers go on from ``states [S, B]``.
    """
    samples, sentences = given_up.nonzero()
    given, words, streams = scores[sentences], lengths[sentences], states[samples, sentences]
    if not multi_root:
        is_root = heads[samples, sentences] == 0
        given[:, 1:, 0][~is_root] = -np.inf
        given[:, 1:, 1:][is_root] = -np.inf
    nowhere, marginals, unused = np.zeros_like(given), np.zeros_like(given), np.zeros(len(given))
    for word in range(1, words.max() + 1):
        rest = np.flatnonzero(words >= word)
        arguments = given, words, rest, multi_root, word, nowhere, marginals, unused, nowhere
        run_over_batch(matrix_tree_in_logs, 2e-7 * words[rest] ** 3.0, *arguments, unused.astype(np.int8))
        cumulative = marginals[rest, word].cumsum(1)
        target = _next_uniform(streams, rest) * cumulative[:, -1]
        head = (cumulative <= target[:, None]).sum(1)
        heads[samples[rest], sentences[rest], word - 1] = head
        kept = given[rest, word, head]
        given[rest, word] = -np.inf
        given[rest, word, head] = kept


def _next_uniform(streams: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Next numbers of SplitMix64 streams ``[G]``, as ``sampling._uniform`` draws them."""
    streams[which] += np.uint64(0x9E3779B97F4A7C15)
    mixed = streams[which]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
