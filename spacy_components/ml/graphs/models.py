"""thinc architectures of semantic dependency parsers: any tok2vec, and a scorer of graphs on top."""

from functools import partial

from spacy import registry
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d

from spacy_components.ml.graphs.scorers import BiaffineGraphScorer, NeurboScorer
from spacy_components.ml.segments import Segmenter
from spacy_components.ml.trees.models import DocScores, build_scorer, segment_scorer


@registry.architectures("diffdecode.NeurboParser.v1")
def build_neurbo_parser(
    tok2vec: Model[list[Doc], list[Floats2d]],
    segmenter: Segmenter,
    hidden_width: int = 100,
    max_distance: int = 16,
    lstm_width: int = 200,
    lstm_depth: int = 2,
) -> Model[list[Doc], DocScores]:
    """NeurboParser (Peng, Thomson and Smith, ACL 2017): BiLSTM, and perceptrons for predicates and arcs.

    With ``diffdecode.HeadConcat.v1`` as its tok2vec it reads syntax by equation 7 of the SPIGOT paper.

    Args:
        tok2vec: word vectors.
        segmenter: which stretches of a document are parsed as one.
        hidden_width: hidden size of the perceptrons.
        max_distance: signed distances to the predicate that have a score of their own; 0 for none at all,
            as in the paper: the parser then needs far longer training.
        lstm_width: size of each direction of the BiLSTM.
        lstm_depth: layers of the BiLSTM; 0 for none.

    Returns:
        the model.
    """

    sizes = {"hidden": hidden_width, "max_distance": max_distance}
    build = partial(build_scorer, NeurboScorer, sizes, lstm_width, lstm_depth)
    return segment_scorer("neurbo_parser", tok2vec, segmenter, build, keep_sentences=False)


@registry.architectures("diffdecode.BiaffineGraphParser.v1")
def build_biaffine_graph_parser(
    tok2vec: Model[list[Doc], list[Floats2d]],
    segmenter: Segmenter,
    hidden_width: int = 128,
    label_width: int = 48,
    max_distance: int = 16,
    lstm_width: int = 0,
    lstm_depth: int = 0,
) -> Model[list[Doc], DocScores]:
    """Biaffine semantic dependency parser (Dozat and Manning, ACL 2018), which is fast on a CPU.

    Args:
        tok2vec: word vectors.
        segmenter: which stretches of a document are parsed as one.
        hidden_width: size of the views of a word as argument and as predicate.
        label_width: the same for the label of an arc.
        max_distance: signed distances to the predicate that have a score of their own; 0 for none at all.
        lstm_width: size of each direction of the BiLSTM.
        lstm_depth: layers of the BiLSTM; 0 for none.

    Returns:
        the model.
    """

    sizes = {"hidden": hidden_width, "label_hidden": label_width, "max_distance": max_distance}
    build = partial(build_scorer, BiaffineGraphScorer, sizes, lstm_width, lstm_depth)
    return segment_scorer("biaffine_graph_parser", tok2vec, segmenter, build, keep_sentences=False)
