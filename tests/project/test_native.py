"""The native core as a part of the package: its face, its sources, and what is said where it is missing or old."""

import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from wellposed.random import native

ROOT = Path(__file__).parents[2]
HEADER = Path(sysconfig.get_path("include")) / "Python.h"
built = pytest.mark.skipif(bool(native.missing), reason=native.missing)

SAME = """
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <cstddef>
#include <type_traits>
#include <utility>

// Types that look the same to a caller. What a structure holds is compared by itself, so pointers to any two are alike.
template <class A, class B> struct Same : std::is_same<A, B> {};
template <class A, class B> struct Same<A*, B*> : std::bool_constant<
    (std::is_class_v<A> && std::is_class_v<B>) || Same<A, B>::value> {};
template <class R, class S> struct Same<R(), S()> : Same<R, S> {};
template <class R, class A, class... As, class S, class B, class... Bs> struct Same<R(A, As...), S(B, Bs...)>
    : std::bool_constant<Same<A, B>::value && Same<R(As...), S(Bs...)>::value> {};
template <class R, class... As, class S, class... Bs> struct Same<R(As..., ...), S(Bs..., ...)>
    : Same<R(As...), S(Bs...)> {};
"""


@pytest.mark.skipif(not HEADER.exists() or not shutil.which("c++"), reason="no Python.h, or no compiler")
def test_our_declarations_of_python_are_pythons_own(tmp_path: Path) -> None:
    """Ours are read under other names, so that both can be there; each must exist in the limited interface of 3.11."""
    ours = re.sub(r"//.*", "", (ROOT / "native" / "python.h").read_text())
    things = sorted(set(re.findall(r"\b_?Py\w+(?=\()", ours)) | set(re.findall(r"\b(?:PyExc_\w+|_Py_\w+)", ours)))
    constants = re.findall(r"constexpr int (\w+)", ours)
    structures = {
        name: re.findall(r"(\w+)(?:\)\(\w*\))?[;,]", body)
        for name, body in re.findall(r"struct (\w+) \{\n(.*?)\n\};", ours, re.DOTALL)
    }
    assert {"PyModuleDef_Init", "PyExc_TypeError"} <= set(things)
    assert {"PyMethodDef", "PyModuleDef"} <= structures.keys()
    lines = [SAME]
    for name in constants:
        lines += [f"constexpr int theirs_{name} = {name};", f"#undef {name}"]
    for name in things:
        lines += [f"using theirs_{name} = decltype(&{name});", f"#define {name} ours_{name}"]
    lines += ["namespace ours {", '#include "python.h"', "}"]
    for name in constants:
        lines.append(f"static_assert(ours::{name} == theirs_{name});")
    for name in things:
        lines.append(f'static_assert(Same<decltype(&ours::ours_{name}), theirs_{name}>::value, "{name}");')
    for name, members in structures.items():
        lines.append(f'static_assert(sizeof(ours::{name}) == sizeof(::{name}), "{name}");')
        for member in members if name != "PyModuleDef_Base" else ():
            lines.append(f"static_assert(offsetof(ours::{name}, {member}) == offsetof(::{name}, {member}));")
            lines.append(f"static_assert(sizeof(ours::{name}::{member}) == sizeof(::{name}::{member}));")
    unit = tmp_path / "both.cpp"
    unit.write_text("\n".join(lines))
    include = [f"-I{HEADER.parent}", f"-I{ROOT / 'native'}"]
    done = subprocess.run(
        ["c++", "-std=c++17", "-fsyntax-only", *include, str(unit)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@built
@pytest.mark.parametrize("most", ["v4", "v3", "baseline"])
def test_an_instruction_set_can_be_forced(most: str) -> None:
    """In a process of its own, since it is chosen once; never a better one than the processor has."""
    code = (
        "import sys; from importlib import machinery, util; "
        "spec = util.spec_from_loader('_native', machinery.ExtensionFileLoader('_native', sys.argv[1])); "
        "print(util.module_from_spec(spec).instruction_set())"
    )
    command = [sys.executable, "-c", code, str(native.core.__file__)]
    used = subprocess.run(
        command, env={"WELLPOSED_INSTRUCTION_SET": most}, capture_output=True, text=True, check=True
    ).stdout.strip()
    order = ["baseline", "v3", "v4"]
    assert used in order[: order.index(most) + 1]
    if most == "v4":
        assert used == native.core.instruction_set()


def test_the_digest_is_of_every_source_and_of_the_way_they_are_compiled(tmp_path: Path) -> None:
    digest = runpy.run_path(str(ROOT / "build_tools" / "digest.py"))["source_digest"]
    for name in ("native", "build_tools"):
        shutil.copytree(ROOT / name, tmp_path / name)
    seen = {digest(ROOT), digest(tmp_path)}
    assert len(seen) == 1
    changed = [*(p for p in (tmp_path / "native").rglob("*") if p.is_file()), tmp_path / "build_tools" / "core.py"]
    for path in changed:
        path.write_text(path.read_text() + "\n")
        seen.add(digest(tmp_path))
    assert len(seen) == 1 + len(changed)


@built
def test_a_core_of_other_sources_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "digest.py"
    other.write_text("def source_digest(root): return 'other'")
    monkeypatch.setattr(native, "_DIGEST", other)
    with pytest.warns(RuntimeWarning, match=r"`pip install -e \.` builds it again"):
        native._warn_if_stale()


def test_a_core_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wellposed._native", None)
    with pytest.warns(RuntimeWarning, match="plain torch serves"):
        without = runpy.run_path(native.__file__)
    assert "was not built" in without["missing"]
    assert "pip install" in without["missing"]
    with pytest.raises(ImportError, match="was not built"):
        without["__getattr__"]("core")
    with pytest.raises(AttributeError):
        without["__getattr__"]("kernel")
