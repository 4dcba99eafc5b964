"""How the native core is compiled: with which compiler, and for which instruction sets.

No compiler of C++ is like another, so the machine's own is tried on the core first; one that is too old is passed over
for the compiler that comes from the package registry, ``ziglang``. ``CXX`` overrides both. Nothing but the C library is
linked, and no ``Python.h`` is needed.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from digest import source_digest

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "native" / "loops" / "kernels.cpp"

# kernels.cpp is compiled once for each of these, best first; native/dispatch.cpp asks the processor which one to run.
INSTRUCTION_SETS = {
    "x86_64": {
        "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
        "v3": ["-march=x86-64-v3"],
        "baseline": [],
    }
}.get(platform.machine(), {"baseline": []})

# Values are the same bits everywhere, so no product may be fused with a sum; square roots and conversions set no errno
# and raise no signal, so that they can be vectors. GCC 12 warns of its own headers and of vectors passed by value.
FLAGS = [
    *("-O3", "-g0", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-Wall", "-Wextra", "-Wno-psabi", "-Wno-maybe-uninitialized", "-Wno-unknown-warning-option"),
]
LINK = {"darwin": ["-bundle", "-undefined", "dynamic_lookup"]}.get(sys.platform, ["-shared", "-Wl,--as-needed"])

# Old names of glibc, so that the result loads on any Linux of the last ten years; and no C++ library, which zig would
# build first.
ZIG = [*(sys.executable, "-m", "ziglang", "c++"), *("-target", f"{platform.machine()}-linux-gnu.2.17", "-nostdlib++")]
ZIG_REQUIREMENT = (
    "ziglang>=0.14; sys_platform == 'linux' and (platform_machine == 'x86_64' or platform_machine == 'aarch64')"
)


def compiler() -> list[str] | None:
    """The command of the machine's compiler: what ``CXX`` says, else the first that understands the core."""
    if chosen := shlex.split(os.environ.get("CXX", "")):
        return chosen
    return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name) and _understands(name)), None)


def build(output: Path) -> None:
    """Compile the core to ``output``; ``CXXFLAGS`` and ``LDFLAGS`` are added where they usually are.

    Raises:
        CalledProcessError: If the compiler finds fault with the core.
        OSError: If the compiler cannot be run, or there is no source.
    """
    command = [*(compiler() or ZIG), *FLAGS, *shlex.split(os.environ.get("CXXFLAGS", ""))]
    digest = f'-DSOURCE_DIGEST="{source_digest(ROOT)}"'
    units = [(name, KERNELS, _flags(name)) for name in INSTRUCTION_SETS]
    units += [(path.stem, path, [digest]) for path in sorted((ROOT / "native").glob("*.cpp"))]
    with tempfile.TemporaryDirectory() as folder:
        objects = [f"{folder}/{name}.o" for name, _, _ in units]
        steps = [
            [*command, *flags, "-c", str(source), "-o", made]
            for (_, source, flags), made in zip(units, objects, strict=True)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, steps))
        linked = f"{folder}/{output.name}"
        _run([*command, *LINK, *objects, *shlex.split(os.environ.get("LDFLAGS", "")), "-o", linked])
        output.parent.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)  # rather than written over under a process that has it loaded
        shutil.copyfile(linked, output)


def _flags(instruction_set: str) -> list[str]:
    return [*INSTRUCTION_SETS[instruction_set], f"-DINSTRUCTION_SET={instruction_set}"]


def _run(command: list[str]) -> None:
    if command[: len(ZIG)] == ZIG:  # which has names of its own for processors
        command = [part.replace("x86-64-v", "x86_64_v") for part in command]
    subprocess.run(command, check=True)


def _understands(name: str) -> bool:
    best = next(iter(INSTRUCTION_SETS))
    command = [name, *FLAGS, *_flags(best), "-fsyntax-only", str(KERNELS)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
