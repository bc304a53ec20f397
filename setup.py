"""The one thing that pyproject.toml cannot say: a ``.pth`` file beside the packages."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PTH = "diffdecode-fairseq.pth"
START_HOOK = "import fairseq_compat.hook; fairseq_compat.hook.install()\n"


class BuildWithPth(build_py):
    """Puts a ``.pth`` that starts fairseq_compat's import hook beside the packages.

    A wheel and an editable install then carry it to the root of site-packages, the one place where Python
    looks for it.
    """

    def run(self):
        super().run()
        install = self.get_finalized_command("install")
        root = Path(install.install_lib if self.editable_mode else self.build_lib)
        root.mkdir(parents=True, exist_ok=True)
        root.joinpath(PTH).write_text(START_HOOK)

    def get_outputs(self, include_bytecode=1):
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, str(Path(self.build_lib, PTH))]


setup(cmdclass={"build_py": BuildWithPth})
