"""The native core as an extension module; all else about the package stands in pyproject.toml."""

import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

sys.path.insert(0, str(Path(__file__).parent / "build_tools"))

import core


class BuildCore(build_ext):
    """Compiles the core our way. Where that fails there is none, and the package does without."""

    def build_extension(self, extension: Extension) -> None:
        """Build the one extension that there is."""
        try:
            core.build(Path(self.get_ext_fullpath(extension.name)))
        except (OSError, subprocess.CalledProcessError) as error:
            raise CompileError(f"the native core was not built: {error}") from error


# One module serves every Python from 3.11 on by its limited interface, which free-threaded Python does not have.
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")
setup(
    ext_modules=[Extension("wellposed._native", [], py_limited_api=True, optional=True)] if limited else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if limited else {},
    cmdclass={"build_ext": BuildCore},
)
