"""fairseq-hydra-train with our task, model and criterion in a configuration file."""

import os
import subprocess
import sys

import toy_corpus
from patience import HANGS_AFTER

CONFIG = """\
common: {{user_dir: {user_dir}, cpu: true, seed: 1}}
task: {{_name: sequence_tagging, data: {data}}}
model: {{_name: fixed_attention_lstm, decoder_hidden_size: 16, encoder_hidden_size: 16}}
criterion: {{_name: soft_beam, alpha: 0.5, wrong_label_costs: "O=2,B-PER=1.5"}}
dataset: {{max_tokens: 1000, num_workers: 0}}
optimizer: {{_name: adam}}
lr_scheduler: {{_name: fixed}}
optimization: {{max_epoch: 1, lr: [0.005]}}
checkpoint: {{save_dir: {folder}/run}}
"""


def test_hydra_trains_and_its_checkpoint_is_read(tmp_path, capsys):
    data = toy_corpus.write_corpus(tmp_path, 60, "--dataset-impl", "raw")
    config = CONFIG.format(user_dir=toy_corpus.USER_DIR, data=data, folder=tmp_path)
    (tmp_path / "tag.yaml").write_text(config)
    command = [sys.executable, "-c", "from fairseq_cli.hydra_train import cli_main; cli_main()"]
    command += ["--config-dir", str(tmp_path), "--config-name", "tag", f"hydra.run.dir={tmp_path}/hydra"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_AFTER, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "alpha 0.5 | beam_overlap" in done.stdout + done.stderr
    capsys.readouterr()
    toy_corpus.run(
        "generate", data, "--user-dir", toy_corpus.USER_DIR, "--task", "sequence_tagging", "--cpu",
        "--path", tmp_path / "run" / "checkpoint_best.pt", "--beam", "2", "--scoring", "conll_f1",
    )  # fmt: skip
    assert "accuracy" in capsys.readouterr().out
