"""Several ways to train one model, run by fairseq's own commands and compared in one table and picture."""

from fairseq_plugins.comparison.decoding import Decoding, decode
from fairseq_plugins.comparison.report import Row, plot, table, write_json
from fairseq_plugins.comparison.runs import TrainingRun, continued, fairseq_command, train_together
from fairseq_plugins.comparison.settings import claim

__all__ = [
    "Decoding",
    "Row",
    "TrainingRun",
    "claim",
    "continued",
    "decode",
    "fairseq_command",
    "plot",
    "table",
    "train_together",
    "write_json",
]
