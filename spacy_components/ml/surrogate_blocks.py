"""Every surrogate gradient as a block of spaCy's configs, with its own options: ``diffdecode.NAME.v1``.

The blocks come from the registry of surrogates. A new surrogate has one without a line here.
"""

from spacy import registry

from diffdecode.structure import SURROGATES

SURROGATE_BLOCK = "diffdecode.{}.v1"

for name, made in SURROGATES.items():
    registry.misc.register(SURROGATE_BLOCK.format(name), func=made)
