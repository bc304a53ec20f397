"""Fault: ``fairseq-train --task X --criterion Y --help`` shows no option of X and Y.

fairseq parses twice, to learn of X and Y first; argparse prints the help, and ends, the first time.
"""

import functools
import sys

from fairseq import options

HELP = {"-h", "--help"}


def fix() -> bool:
    """Ask for help the second time only, when the parser knows everything."""
    parse = options.parse_args_and_arch

    @functools.wraps(parse)
    def parse_args_and_arch(parser, input_args=None, *args, **kwargs):
        if HELP & set(sys.argv[1:] if input_args is None else input_args):
            _without_help_once(parser)
        return parse(parser, input_args, *args, **kwargs)

    options.parse_args_and_arch = parse_args_and_arch
    return True


def _without_help_once(parser):
    def parse_known_args(args=None, namespace=None):
        vars(parser).pop("parse_known_args", None)
        args = sys.argv[1:] if args is None else args
        return parser.parse_known_args([word for word in args if word not in HELP], namespace)

    parser.parse_known_args = parse_known_args
