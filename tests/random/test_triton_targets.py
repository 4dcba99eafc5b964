"""The GPU's kernels compile for real targets, for which no device is needed, into what a fast kernel looks like.

Nothing is spilled, memory is read and written in wide accesses, and no multiplication is fused with an addition but
where that is written. Triton compiles outside of its interpreter alone, so all of it is done in one other process.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("triton", reason="the GPU's kernels are written in Triton, which is not installed")

PROGRAM = """
import json, os, re, subprocess, tempfile
import triton
from triton import language as tl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from wellposed.penalties.computing import gpu_kernels
from wellposed.random.kernels import choosing, fills, painting, thins

TARGETS = {"cuda": GPUTarget("cuda", 90, 32), "hip": GPUTarget("hip", "gfx942", 64)}
NAMES = {"fp32": "float32", "fp64": "float64", "bf16": "bfloat16", "fp16": "float16", "u32": "bits", "u8": "bool"}

def compiled(function, target, pointers, **constants):
    signature, values, attributes = {}, {}, {}
    for k, name in enumerate(function.signature.parameters):
        if function.params[k].is_constexpr:
            signature[name], values[(k,)] = "constexpr", constants[name]
        else:
            signature[name] = "*" + pointers[name] if name in pointers else "i64"
            if name in pointers and name not in function.do_not_specialize_on_alignment:
                attributes[(k,)] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, values, attributes)
    return triton.compile(source, target=TARGETS[target], options={"num_warps": 4, "enable_fp_fusion": False})

def spilled(ptx):
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        options = ["-v", "--fmad=false", "--gpu-name=sm_90a", "-o", file.name + ".o"]
        command = [get_ptxas(90).path, *options, file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        os.remove(file.name + ".o")
    return [int(n) for n in re.findall(r"(\\d+) bytes spill", told)], int(re.findall(r"Used (\\d+) registers", told)[0])

def cases(target):
    where = dict(DIMS=0, INDEX=tl.int32, IS_SHIFTED=False, TARGET=target)
    for dtype in ("fp32", "fp64", "bf16", "fp16"):
        packed = dtype in ("bf16", "fp16")
        pointers = dict.fromkeys(("x", "out"), dtype) | dict.fromkeys(("shift", "cut"), "i64")
        kernel, blocks = (thins.thin_packed if packed else thins.thin), 512 if dtype == "bf16" else 256
        for is_read in (False, True):
            form = dict(PER_BLOCK=4, IS_PACKED=packed, IS_READ=is_read, BLOCKS=blocks, **where)
            yield f"thin {dtype}" + " by memory" * is_read, kernel, pointers, form
        form = where | dict(PER_BLOCK=1, DIMS=3, IS_PACKED=False, IS_READ=False, BLOCKS=512)
        yield f"thin {dtype} anywhere", thins.thin, pointers, form
        form = dict(IS_ALIGNED=True, IS_SHIFTED=False, IS_READ=False, TILE=1024, TARGET=target)
        yield f"rows {dtype}", thins.thin_rows, pointers, form
        pointers = {"x": dtype, "out": dtype, "painted": "u8", "dropped": "i64"}
        yield f"clear {dtype}", painting.clear, pointers, dict(TILE=1024, TARGET=target)
    for kind, dtype, terms in [(0, "u32", 0), (5, "u8", 0), (5, "fp32", 0)] + [
        (kind, dtype, terms) for kind, terms in ((1, 0), (2, 0), (3, 0), (4, 19)) for dtype in ("fp32", "fp64", "bf16")
    ]:
        is_float64 = dtype == "fp64"
        form = where | dict(KIND=kind, TERMS=terms, IS_FLOAT64=is_float64, PER_BLOCK=2 if is_float64 else 4, BLOCKS=512)
        pointers = {"out": dtype, "series": "fp64" if is_float64 else "fp32", "shift": "i64"}
        yield f"fill {kind} {dtype}", fills.fill, pointers, form | dict(IS_PACKED=dtype in ("u8", "bf16"))
    yield "paint", painting.paint, {"painted": "u8", "shift": "i64"}, dict(IS_SHIFTED=False, TILE=1024)
    yield "choose", choosing.choose, {"words": "u32", "chosen": "i64"}, dict(SIZE=256, TILE=16)
    for kind in range(3):
        for dtype, exact in (("fp32", tl.float32), ("fp64", tl.float64)):
            form = dict(KIND=kind, EXACT=exact, SQUARES=True, IS_ALIGNED=True, TILE=1024)
            pointers = {"table": "i64", "bad": "i32", "sums": "fp64"}
            yield f"elastic {kind} {dtype}", gpu_kernels.elastic, pointers, form

seen = {}
for target in TARGETS:
    for name, function, pointers, constants in cases(target):
        if target == "hip" and name not in ("thin bf16", "thin fp32", "fill 2 fp32", "fill 1 bf16", "elastic 1 fp32"):
            continue
        kernel = compiled(function, target, pointers, **constants)
        if target == "hip":
            seen["hip " + name] = {"size": len(kernel.asm["hsaco"])}
            continue
        ptx = kernel.asm["ptx"]
        spills, registers = spilled(ptx)
        accesses = sorted(set(re.findall(r"\\b(?:ld|st)\\.global[.a-z0-9:]*", ptx)))
        fused = len(re.findall(r"\\bfma\\.rn", ptx))
        seen[name] = {"spills": spills, "registers": registers, "accesses": accesses, "fused": fused}
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What each kernel was compiled to."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    return result


@pytest.mark.slow
def test_nothing_is_spilled(seen: dict[str, Any]) -> None:
    kernels = {name: kernel for name, kernel in seen.items() if "spills" in kernel}
    assert {name: kernel["spills"] for name, kernel in kernels.items() if any(kernel["spills"])} == {}
    assert max(kernel["registers"] for name, kernel in kernels.items() if "fp64" not in name) <= 128


WIDE = {  # the widest accesses that the full part of a tensor needs: 16 bytes, or 8 that hold 4 numbers
    "thin fp32": {"ld.global.v4.b32", "st.global.v4.b32"},
    "thin bf16": {"ld.global.b64", "st.global.b64"},
    "thin fp16": {"ld.global.b64", "st.global.b64"},
    "thin fp64": {"ld.global.v2.b64", "st.global.v2.b64"},
    "rows fp32": {"ld.global.v4.b32", "st.global.v4.b32"},
    "rows bf16": {"ld.global.v4.b32", "st.global.v4.b32"},
    "fill 0 u32": {"st.global.v4.b32"},
    "fill 1 fp32": {"st.global.v4.b32"},
    "fill 2 bf16": {"st.global.v2.b64"},
    "fill 5 u8": {"st.global.v4.b32"},
    "elastic 0 fp32": {"ld.global.v4.b32", "st.global.v4.b32"},
    "elastic 1 fp32": {"ld.global.v4.b32", "st.global.v4.b32"},
}


@pytest.mark.slow
def test_memory_is_read_and_written_in_wide_accesses(seen: dict[str, Any]) -> None:
    missing = {name: wide - set(seen[name]["accesses"]) for name, wide in WIDE.items()}
    assert {name: accesses for name, accesses in missing.items() if accesses} == {}


@pytest.mark.slow
def test_no_operation_is_fused_that_is_not_written_so(seen: dict[str, Any]) -> None:
    """Two an element turn a word into numbers, four make a quotient of the quantile: 16 elements a thread."""
    written = {"fill 2 fp32": 96, "fill 3 fp32": 96, "fill 2 bf16": 96, "fill 3 bf16": 96}
    written |= {"fill 4 fp32": 16, "fill 4 bf16": 16}
    fused = {name: kernel["fused"] for name, kernel in seen.items() if kernel.get("fused")}
    assert fused == written


@pytest.mark.slow
def test_the_same_source_serves_other_makers(seen: dict[str, Any]) -> None:
    assert {name for name in seen if name.startswith("hip")} >= {
        "hip thin fp32",
        "hip fill 2 fp32",
        "hip elastic 1 fp32",
    }
