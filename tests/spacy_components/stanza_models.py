"""A generated treebank, and tiny parsers that Stanza's own trainer makes from it."""

import random
from typing import NamedTuple

import torch
from spacy.tokens import Doc


class W(NamedTuple):
    """A word of the treebank; its head counts from 1, 0 is the root."""

    text: str
    upos: str
    xpos: str
    feats: str
    lemma: str
    head: int
    deprel: str


NOUNS, VERBS = "cat dog bird man house tree river car".split(), "sees likes eats finds takes makes".split()
ADJECTIVES, ADVERBS = "small big red old new".split(), "now here often".split()
SMALL = {
    "hidden_dim": 16,
    "num_layers": 2,
    "char_hidden_dim": 8,
    "char_emb_dim": 6,
    "word_emb_dim": 10,
    "tag_emb_dim": 6,
    "transformed_dim": 8,
    "deep_biaff_hidden_dim": 12,
    "word_cutoff": 2,
    "dropout": 0.2,
    "max_steps": 50,
    "eval_interval": 50,
    "batch_size": 400,
    "optim": "adam",
    "lr": 0.01,
}


def generated_sentence(rng):
    """One sentence: sometimes a single word, sometimes with crossing arcs, marks that Stanza simplifies."""
    if rng.random() < 0.1:
        return [W("go", "VERB", "VB", "VerbForm=Inf", "go", 0, "root")]
    parts = []  # (text, upos, xpos, feats, lemma, index of the head, relation)

    def noun_phrase(relation, head):
        at = len(parts) + 2
        adjective, noun = rng.choice(ADJECTIVES), rng.choice(NOUNS)
        parts.append((rng.choice(["the", "a", "A"]), "DET", "DT", "PronType=Art", "the", at, "det"))
        parts.append((adjective, "ADJ", "JJ", "Degree=Pos", adjective, at, "amod"))
        parts.append((noun, "NOUN", "NN", "Number=Sing", noun, head, relation))
        return at

    subject = noun_phrase("nsubj", 3)
    verb = rng.choice(VERBS)
    parts.append((verb, "VERB", "VBZ", "Number=Sing|Person=3", verb[:-1], -1, "root"))
    last = noun_phrase("obj", 3) if rng.random() < 0.7 else 3
    if rng.random() < 0.5:
        word = rng.choice(["of", "with"])
        at = len(parts)
        parts.append((word, "ADP", "IN", "_", word, at + 3, "case"))
        noun_phrase("nmod" if word == "of" else "obl", last if word == "of" else 3)
    if rng.random() < 0.3:  # far from its noun: the arc crosses the root's
        parts.append(("alone", "ADJ", "JJ", "Degree=Pos", "alone", subject, "acl"))
    parts.append((rng.choice(ADVERBS), "ADV", "RB", "_", "_", 3, "advmod"))
    mark = rng.choice([".", "!", "?!", "??"])
    parts.append((mark, "PUNCT", ".", "_", mark, 3, "punct"))
    return [W(*part[:5], part[5] + 1, part[6]) for part in parts]


def treebank(sentences, seed=0):
    """A list of generated sentences."""
    rng = random.Random(seed)
    return [generated_sentence(rng) for _ in range(sentences)]


def write_conllu(sentences, path):
    """Writes sentences to a file, and returns its name."""
    blocks = ["\n".join(_line(i, word) for i, word in enumerate(s, 1)) for s in sentences]
    path.write_text("\n\n".join(blocks) + "\n\n", encoding="utf-8")
    return str(path)


def _line(number, w):
    columns = (number, w.text, w.lemma, w.upos, w.xpos, w.feats, w.head, w.deprel, "_", "_")
    return "\t".join(map(str, columns))


def without_tags(sentences):
    """The words and trees alone."""
    return [[w._replace(upos="_", xpos="_", feats="_", lemma="_") for w in s] for s in sentences]


def train_checkpoint(folder, name, sentences, *flags, **settings):
    """Trains a parser with Stanza's own command; returns its file."""
    from stanza.models import parser

    file = write_conllu(sentences, folder / f"{name}.conllu")
    options = [f"--{key}={value}" for key, value in (SMALL | settings).items()]
    files = [
        "--train_file",
        file,
        "--eval_file",
        file,
        "--save_dir",
        str(folder),
        "--save_name",
        f"{name}.pt",
    ]
    fixed = ["--no_second_optim", "--no_checkpoint", "--cpu", "--shorthand", "en_toy", "--lang", "en"]
    if "wordvec_pretrain_file" not in settings:
        fixed.append("--no_pretrain")
    parser.main([*files, *fixed, *flags, *options])
    return folder / f"{name}.pt"


def write_pretrain(path, width=5):
    """Random word vectors in Stanza's format."""
    from stanza.models.common.pretrain import Pretrain, PretrainedWordVocab

    pretrain = Pretrain(str(path))
    pretrain._vocab = PretrainedWordVocab([*NOUNS, *VERBS, "the", "?"])
    pretrain._emb = torch.randn(len(pretrain._vocab), width, generator=torch.Generator().manual_seed(0))
    pretrain.save(str(path))
    return str(path)


def write_charlm(path, forward):
    """A random character language model in Stanza's format."""
    from stanza.models.common.char_model import CharacterLanguageModel
    from stanza.models.common.vocab import CharVocab

    settings = {"char_emb_dim": 4, "char_hidden_dim": 6, "char_num_layers": 1, "char_dropout": 0.1}
    vocab = {"char": CharVocab([sorted(set("abcdefghijklmnopqrstuvwxyz .!?\n"))])}
    torch.manual_seed(int(forward))
    CharacterLanguageModel(settings | {"char_rec_dropout": 0.0}, vocab, is_forward_lm=forward).save(str(path))
    return str(path)


def write_transformer(folder):
    """A random BERT with a tokenizer of letters and a few words."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir()
    letters = [*"abcdefghijklmnopqrstuvwxyz.!?0123456789"]
    units = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{x}" for x in letters), *NOUNS]
    (folder / "vocab.txt").write_text("\n".join(units), encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=128).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 12}
    BertModel(BertConfig(vocab_size=len(units), max_position_embeddings=128, **sizes)).save_pretrained(folder)
    return str(folder)


def stanza_trainer(path, pretrain=None, charlm_forward=None, charlm_backward=None):
    """What Stanza itself makes of a file, and its word vectors."""
    from stanza.models.common.pretrain import Pretrain
    from stanza.models.depparse.trainer import Trainer

    vectors = Pretrain(pretrain) if pretrain else None
    charlms = {"charlm_forward_file": charlm_forward, "charlm_backward_file": charlm_backward}
    return Trainer.load(str(path), vectors, args=charlms, device="cpu"), vectors


def stanza_parses(path, sentences, **files):
    """``(head, relation)`` of every word, as Stanza itself parses them.

    The relation of the root is ``ROOT``, as always in spaCy; a parser that is hardly trained has others, too.
    """
    from stanza.models.depparse.data import DataLoader
    from stanza.models.depparse.utils import predict_dataset

    trainer, vectors = stanza_trainer(path, **files)
    document = as_document(sentences)
    data = DataLoader(
        document, 150, trainer.args, vectors, vocab=trainer.vocab, evaluation=True, sort_during_eval=True
    )
    found = predict_dataset(trainer, data)
    return [[(int(head), label if head else "ROOT") for head, label in s] for s in found]


def as_document(sentences):
    """Stanza's document of the words and tags, without the trees."""
    from stanza.models.common.doc import Document

    columns = "text upos xpos feats lemma".split()
    return Document(
        [
            [{"id": (i,), **{c: v for c, v in zip(columns, w) if v != "_"}} for i, w in enumerate(s, 1)]
            for s in sentences
        ]
    )


def as_doc(vocab, sentence, tagged=True):
    """The words of a sentence, with tags but without its tree."""
    words = [w.text for w in sentence]
    if not tagged or sentence[0].upos == "_":
        return Doc(vocab, words=words)
    return Doc(
        vocab,
        words=words,
        pos=[w.upos for w in sentence],
        tags=[w.xpos for w in sentence],
        morphs=["" if w.feats == "_" else w.feats for w in sentence],
        lemmas=[w.lemma for w in sentence],
    )


def parses(docs):
    """``(head, relation)`` of every token, heads from 1 within the sentence, 0 for the root."""
    return [
        [(0, t.dep_) if t.head.i == t.i else (t.head.i - t.sent.start + 1, t.dep_) for t in doc]
        for doc in docs
    ]
