"""Fault: a misspelt option is ``unrecognized arguments: --aplha 3``, and it may mean one of some 300."""

import difflib
import functools

from fairseq import options


def fix() -> bool:
    """Name the nearest option."""
    parse = options.parse_args_and_arch

    @functools.wraps(parse)
    def parse_args_and_arch(parser, *args, **kwargs):
        if "error" not in vars(parser):
            parser.error = functools.partial(_error, parser, parser.error)
        return parse(parser, *args, **kwargs)

    options.parse_args_and_arch = parse_args_and_arch
    return True


def _error(parser, error, message):
    known = [name for action in parser._actions for name in action.option_strings]
    words = message.removeprefix("unrecognized arguments: ").split() if "unrecognized" in message else []
    for word in words:
        name = word.partition("=")[0]
        near = difflib.get_close_matches(name, known, n=1) if name.startswith("--") else []
        message += f"\n{name}: did you mean {near[0]}?" if near else ""
    error(message)
