"""What spares the toy runs time changes nothing in them."""

from unittest import mock

import pytest
import toy_corpus
from composed import compose_again
from fairseq import options
from fairseq.dataclass import utils
from omegaconf import OmegaConf

import fairseq_plugins  # noqa: F401  (its tasks and criterions)

OTHER_PARTS = "--criterion soft_beam --optimizer sgd --lr-scheduler inverse_sqrt"
GIVEN = {
    "first": "--lr 0.1,0.2 --save-dir runs/1",
    "other values": "--lr 0.3 --save-dir runs/a=b, --sentence-avg --max-tokens 7",
    "other parts": f"{OTHER_PARTS} --alpha 0.5",
    "values of other parts": f"{OTHER_PARTS} --alpha 3",
}


@pytest.mark.parametrize("given", GIVEN)
def test_configuration_is_that_which_hydra_makes(given):
    words = ["data", *toy_corpus.TAGGER, *GIVEN[given].split()]
    arguments = options.parse_args_and_arch(options.get_training_parser(), input_args=words)
    expected = utils.convert_namespace_to_omegaconf(arguments)
    with mock.patch.object(utils, "compose", compose_again):
        found = [utils.convert_namespace_to_omegaconf(arguments) for _ in range(2)]
    assert [OmegaConf.to_container(config) for config in found] == [OmegaConf.to_container(expected)] * 2
