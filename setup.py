"""Packaging of diffdecode: one distribution, four packages, extras per framework."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

PTH = "diffdecode-fairseq.pth"
START_HOOK = "import fairseq_compat.hook; fairseq_compat.hook.install()\n"


class BuildWithPth(build_py):
    """Puts a ``.pth`` that starts fairseq_compat's import hook beside the packages.

    A wheel and an editable install then carry it to the root of site-packages, the one place where Python
    looks for it.
    """

    def run(self):
        super().run()
        install = self.get_finalized_command("install")
        root = Path(install.install_lib if self.editable_mode else self.build_lib)
        root.mkdir(parents=True, exist_ok=True)
        root.joinpath(PTH).write_text(START_HOOK)

    def get_outputs(self, include_bytecode=1):
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, str(Path(self.build_lib, PTH))]


# fairseq itself is not listed on purpose: the newest pip cannot resolve fairseq 0.12.2's own pins.
# README, "Install", gives the one extra line (pip install --no-deps fairseq==0.12.2).
FAIRSEQ = [
    "hydra-core==1.3.2",
    "omegaconf==2.3.0",
    "bitarray",
    "cffi",
    "cython",
    "regex",
    "tqdm",
    "sacrebleu",
    "sentencepiece",
    "tensorboardX",
    "matplotlib",
    "rich",
]
SPACY = ["spacy>=3.8,<3.9", "thinc>=8.3,<9", "conllu", "matplotlib"]
STANZA = ["stanza>=1.12"]
# No part of "dev": where it is installed, every process that starts spaCy takes twice as long to do so.
TRANSFORMERS = ["spacy-transformers>=1.4,<1.5"]
GPU = ["triton>=3.0; platform_system == 'Linux'"]
# With Triton, tests run the GPU kernels in its interpreter and compile them; neither takes a GPU.
DEV = [
    *("pytest", "pytest-xdist", "hypothesis", "ruff", "scikit-learn", "matplotlib", "rich", "tqdm"),
    "triton>=3.0; platform_system == 'Linux' and platform_machine == 'x86_64'",
]

# What the benchmarks compare with; nothing else needs it.
BENCH = [
    "torch-struct==0.5",
    "supar==1.1.4",
    "stanza>=1.12",
    "ufal.chu_liu_edmonds",
    "networkx",
    "entmax",
    "reinmax",
]

ML, TRAINING, PIPELINE = "spacy_components.ml", "spacy_components.training", "spacy_components.pipeline"
SPACY_ENTRY_POINTS = {
    "spacy_factories": [
        "spigot_parser = spacy_components.factories:make_spigot_parser",
        "spigot_sdp = spacy_components.factories:make_spigot_sdp",
        f"masked_textcat = {PIPELINE}.masked_textcat:make_masked_textcat",
        f"masked_spancat = {PIPELINE}.masked_spancat:make_masked_spancat",
    ],
    "spacy_architectures": [
        f"diffdecode.BiaffineParser.v1 = {ML}.parser_models:build_biaffine_parser",
        f"diffdecode.BiLstmMlpParser.v1 = {ML}.parser_models:build_bilstm_mlp_parser",
        f"diffdecode.StanzaParser.v1 = {ML}.stanza_parser:build_stanza_parser",
        f"diffdecode.NeurboParser.v1 = {ML}.graph_models:build_neurbo_parser",
        f"diffdecode.BiaffineGraphParser.v1 = {ML}.graph_models:build_biaffine_graph_parser",
        f"diffdecode.ParseListener.v1 = {ML}.listener:build_parse_listener",
        f"diffdecode.GraphListener.v1 = {ML}.listener:build_graph_listener",
        f"diffdecode.HeadConcat.v1 = {ML}.concat:build_head_concat",
        f"diffdecode.GraphConcat.v1 = {ML}.concat:build_graph_concat",
        f"diffdecode.StandaloneParse.v1 = {ML}.standalone:build_standalone_parse",
        f"diffdecode.StandaloneGraph.v1 = {ML}.standalone:build_standalone_graph",
        f"diffdecode.WordDropoutEmbed.v1 = {ML}.word_dropout:build_word_dropout_embed",
    ],
    "spacy_misc": [
        f"diffdecode.whole_docs.v1 = {ML}.segments:whole_docs",
        f"diffdecode.sentences.v1 = {ML}.segments:sentences",
        f"diffdecode.lazy_segments.v1 = {ML}.segments:lazy_segments",
    ],
    "spacy_scorers": [
        f"diffdecode.parse_scorer.v1 = {TRAINING}.scorers:make_parse_scorer",
        f"diffdecode.sdp_scorer.v1 = {TRAINING}.scorers:make_sdp_scorer",
        f"diffdecode.cats_scorer.v1 = {TRAINING}.scorers:make_cats_scorer",
    ],
    "spacy_readers": [
        f"diffdecode.Corpus.v1 = {TRAINING}.corpus:create_corpus",
        f"diffdecode.Sdp2015.v1 = {TRAINING}.corpus:create_sdp2015_corpus",
        f"diffdecode.Conllu.v1 = {TRAINING}.corpus:create_conllu_corpus",
        f"diffdecode.LabelledText.v1 = {TRAINING}.corpus:create_labelled_text_corpus",
        f"diffdecode.MixedCorpus.v1 = {TRAINING}.mixing:create_mixed_corpus",
        f"diffdecode.GraphLabels.v1 = {TRAINING}.graph_labels:read_graph_labels",
    ],
    "spacy_callbacks": [f"diffdecode.tune_parser.v1 = {TRAINING}.tuning:create_tune_parser"],
    "spacy_loggers": [f"diffdecode.GuardedLogger.v1 = {TRAINING}.guard:create_guarded_logger"],
    "spacy_cli": [
        "diffdecode_convert_sdp = spacy_components.cli:convert_sdp_cli",
        "diffdecode_evaluate_sdp = spacy_components.cli:evaluate_sdp_cli",
        "diffdecode_compare_parses = spacy_components.cli:compare_parses_cli",
        "diffdecode_distill_parser = spacy_components.cli:distill_parser_cli",
    ],
}

setup(
    name="diffdecode",
    version="0.1.0",
    description="Train through the hard decisions of NLP systems, inside fairseq and spaCy",
    license="MIT",
    python_requires=">=3.10,<3.13",
    packages=find_packages(
        include=["diffdecode*", "fairseq_compat*", "fairseq_plugins*", "spacy_components*"]
    ),
    install_requires=["torch>=2.4", "numpy>=1.26", "scipy", "numba"],
    extras_require={
        "fairseq": FAIRSEQ,
        "spacy": SPACY,
        "stanza": STANZA,
        "transformers": SPACY + TRANSFORMERS,
        "gpu": GPU,
        "dev": DEV,
        "bench": BENCH,
        "all": FAIRSEQ + SPACY + STANZA + DEV,
    },
    entry_points={
        "console_scripts": ["diffdecode-train-beam = fairseq_plugins.train_beam:main"],
        **SPACY_ENTRY_POINTS,
    },
    package_data={"spacy_components": ["configs/*.cfg"]},
    cmdclass={"build_py": BuildWithPth},
)
