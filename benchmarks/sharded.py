"""Starting a sharded model: each process fills its shards, or one writes a seed checkpoint that all load.

The second is what torchtitan advises for the same weights on any number of processes: initialize on one, save that by
torch.distributed.checkpoint, and load it everywhere. Run with ``python -m benchmarks.sharded``; ``--help`` says more.
"""

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn

import wellposed as wp
from benchmarks.initialization import llama


def sharded(layers: int) -> Any:
    """The model on the meta device, fully sharded."""
    model: Any = llama(layers)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for module in (model["embed"], *model["layers"], model["norm"], model["head"]):
        fully_shard(module, mesh=mesh)
    return model


def ours(layers: int, folder: Path) -> None:
    """Plan, fill and audit in every process."""
    wp.initialize(sharded(layers), seed=0, device="cpu")


def saved(layers: int, folder: Path) -> None:
    """The whole model by torch's own initializers in one process, written down."""
    if dist.get_rank() == 0:
        model = llama(layers).to_empty(device="cpu")
        torch.manual_seed(0)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.02)
        warnings.filterwarnings("ignore", ".*assuming the intent is to save in a single process")
        state_dict_saver.save(model.state_dict(), checkpoint_id=folder, no_dist=True)
    dist.barrier()


def loaded(layers: int, folder: Path) -> None:
    """That read in every process."""
    model = sharded(layers).to_empty(device="cpu")
    state_dict_loader.load(get_model_state_dict(model), checkpoint_id=folder)


WAYS: dict[str, Callable[[int, Path], None]] = {"ours": ours, "saved": saved, "loaded": loaded}


def one_of(rank: int, world: int, way: str, layers: int, folder: Path) -> None:
    """One process of a way, which leaves its seconds and the memory that it needed."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
    dist.init_process_group("gloo", f"file://{folder / 'store'}", rank=rank, world_size=world)
    wp.initialize(sharded(1), seed=0, device="cpu")  # what a first use of all this loads is not of the work
    with open("/proc/self/clear_refs", "w") as counters:
        counters.write("5")  # the highest resident memory so far is what there is now
    before = resident("VmRSS")
    dist.barrier()
    start = time.perf_counter()
    WAYS[way](layers, folder / "checkpoint")
    dist.barrier()
    figures = {"seconds": time.perf_counter() - start, "bytes": resident("VmHWM") - before}
    (folder / f"{way}-{rank}.json").write_text(json.dumps(figures))
    dist.barrier()
    os._exit(0)  # at an ordinary exit gloo's threads abort now and then


def resident(name: str) -> int:
    """A figure of this process's memory in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


def main() -> None:
    """Run the ways one after the other and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2, help="layers of a Llama-shaped model of width 2048 (2)")
    parser.add_argument("--processes", type=int, default=2, help="how many share the model (2)")
    options = parser.parse_args()
    size = sum(p.nbytes for p in llama(options.layers).parameters())
    print(f"{size / 2**20:.0f} MiB of weights on {options.processes} processes")
    print(f"{'':8}{'seconds':>9}{'peak MiB, the most of a process':>34}{'MiB on disk':>13}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for way in WAYS:
            spawn(one_of, (options.processes, way, options.layers, folder), nprocs=options.processes)
            (folder / "store").unlink(missing_ok=True)
            figures = [json.loads((folder / f"{way}-{i}.json").read_text()) for i in range(options.processes)]
            peak, seconds = max(f["bytes"] for f in figures), max(f["seconds"] for f in figures)
            disk = sum(f.stat().st_size for f in (folder / "checkpoint").glob("*")) if way == "saved" else 0
            print(f"{way:8}{seconds:9.2f}{peak / 2**20:34.0f}{disk / 2**20:13.0f}")


if __name__ == "__main__":
    main()
