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
]
SPACY = ["spacy>=3.8,<3.9", "thinc>=8.3,<9", "conllu", "matplotlib"]
STANZA = ["stanza>=1.12"]
GPU = ["triton>=3.0; platform_system == 'Linux'"]
DEV = ["pytest", "pytest-xdist", "hypothesis", "ruff", "scikit-learn", "matplotlib", "rich", "tqdm"]

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
        "gpu": GPU,
        "dev": DEV,
        "all": FAIRSEQ + SPACY + STANZA + DEV,
    },
    cmdclass={"build_py": BuildWithPth},
)
