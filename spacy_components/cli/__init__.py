"""Sub-commands of ``python -m spacy``, found through the entry point group ``spacy_cli``."""

from spacy_components.cli.calibrate_parser import calibrate_parser_cli
from spacy_components.cli.compare_parses import compare_parses_cli
from spacy_components.cli.convert_sdp import convert_sdp_cli
from spacy_components.cli.diffdecode_data import diffdecode_data_cli
from spacy_components.cli.distill_parser import distill_parser_cli
from spacy_components.cli.evaluate_sdp import evaluate_sdp_cli
from spacy_components.cli.init_diffdecode import init_diffdecode_cli
from spacy_components.cli.package_parser import package_parser_cli
from spacy_components.cli.replace_parser import replace_parser_cli

__all__ = [
    "calibrate_parser_cli",
    "compare_parses_cli",
    "convert_sdp_cli",
    "diffdecode_data_cli",
    "distill_parser_cli",
    "evaluate_sdp_cli",
    "init_diffdecode_cli",
    "package_parser_cli",
    "replace_parser_cli",
]
