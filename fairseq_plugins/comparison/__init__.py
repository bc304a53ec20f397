"""Several ways to train one model, run by fairseq's own commands and compared in one table and picture."""

from diffdecode.files.claim import claim
from fairseq_plugins.comparison.decoding import Decoding, decode, decoded_row
from fairseq_plugins.comparison.report import Row, plot, report, table, write_json
from fairseq_plugins.comparison.runs import TrainingRun, continued, fairseq_command, train_together

__all__ = [
    "Decoding",
    "Row",
    "TrainingRun",
    "claim",
    "continued",
    "decode",
    "decoded_row",
    "fairseq_command",
    "plot",
    "report",
    "table",
    "train_together",
    "write_json",
]
