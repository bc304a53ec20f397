"""A module as one other module shall see it."""

from types import ModuleType


class Overlay(ModuleType):
    """``Overlay(numpy, int=int)`` is numpy with the name ``int`` added; numpy itself stays as it is."""

    def __init__(self, module: ModuleType, **names):
        super().__init__(module.__name__)
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)
