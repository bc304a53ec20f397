"""Configurations of fairseq without hydra's labour, which takes longer than a toy run does."""

import copy

_composed = {}  # by the names of the options given: their values, and what hydra made of them


def compose_again(name, overrides, **options):
    """hydra's ``compose``, which takes longer than a toy run: once for runs that differ in values alone."""
    from hydra.experimental import compose
    from omegaconf import OmegaConf

    names = [option.partition("=")[0] for option in overrides]
    # An option without a dot chooses a part of the configuration, and with it what there is to be set.
    key = (name, *(of if "." in of else option for of, option in zip(names, overrides)))
    if key not in _composed:
        _composed[key] = overrides, compose(name, overrides=overrides, **options)
    before, config = _composed[key]
    config = copy.deepcopy(config)
    for of, option, known in zip(names, overrides, before, strict=True):
        if option != known:
            OmegaConf.update(config, of, value_of(option), merge=True)
    return config


def value_of(option):
    """The value in ``name=value``, as hydra reads it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(option).value()
