"""A census of timm and transformers: how many architectures start at once, and whether what starts is sane.

Run with ``python -m benchmarks.zoo``, or in shards: ``--shard 0/4 --out zoo.0.jsonl`` and so on in processes of their
own, then ``--report zoo.*.jsonl``; what a file holds already is not taken again. Every model has a process of its own.
It is built by its library with its own start, run forward and backward, started by us and run again, and started once
more from the meta device. What the library cannot build here is counted apart, and so is what runs on no input that the
census knows: it is started all the same, without an example.
"""

import argparse
import collections
import contextlib
import fnmatch
import json
import math
import multiprocessing
import re
import resource
import time
import warnings
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import wellposed as wp
from benchmarks.zoo_models import MOST, WIDTH, Specimen, specimens
from wellposed.models.example import arguments

WIDE = 512
SECONDS = 180  # of a processor, for one model
HIGH = 1.3  # times log V: a loss above it is counted
Record = dict[str, Any]


def census(specimen: Specimen) -> Record:
    """What became of one model, in a process of its own, which leaves no memory and no half-traced class behind."""
    record: Record = {"library": specimen.library, "family": specimen.family, "name": specimen.name}
    begin = time.perf_counter()
    processes = multiprocessing.get_context("fork")
    receiver, sender = processes.Pipe(duplex=False)
    worker = processes.Process(target=_work, args=(specimen, sender))
    worker.start()
    sender.close()
    try:
        record |= receiver.recv()
    except EOFError:
        worker.join()
        record |= {"status": "crashed", "reason": f"ended by {worker.exitcode}, after {SECONDS} CPU seconds if by -24"}
    worker.join()
    return record | {"seconds": round(time.perf_counter() - begin, 1)}


def _work(specimen: Specimen, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    try:
        sender.send(_census(specimen))
    except Exception as problem:
        sender.send({"status": "crashed", "reason": f"{type(problem).__name__}: {problem}"[:300]})


def _census(specimen: Specimen) -> Record:
    make, example, own, reason = _first_that_runs(specimen, WIDTH)
    if make is None:
        return {"status": "not built", "reason": reason}
    record: Record = {"own": own, "not_run": "" if own else reason}
    model = _built(make)
    library = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        wp.initialize(model, example=example)
    except wp.WellposedError as problem:
        return record | {"status": "refused", "reason": str(problem)[:2000]}
    record["status"] = "started"
    if own is not None:
        record["ours"] = ours = signal_of(model, example)
        record["dead"] = sorted(set(ours["dead"]) - set(own["dead"]))
    record |= _from_meta(make, example, library)
    if specimen.is_language and own is not None and own["loss"] is not None:
        make, example, wide, _ = _first_that_runs(specimen, WIDE)
        if make is not None and wide is not None:
            model = _built(make)
            wp.initialize(model, example=example)
            record |= {"own_wide": wide["loss"], "ours_wide": signal_of(model, example)["loss"]}
    return record


def _first_that_runs(specimen: Specimen, width: int) -> tuple[Any, Any, Record | None, str]:
    """How to build a model, an input that it runs on, and what its library's start gives there."""
    built, reason = None, ""
    ways = specimen.ways(width)
    while True:
        try:
            make, example = next(ways)
            with torch.device("meta"):
                count = sum(parameter.numel() for parameter in make().parameters())
            if count > MOST * (width / WIDTH):
                reason = reason or f"{count:,} parameters"
                continue
            model = _built(make)
        except StopIteration:
            return built, None, None, reason
        except Exception as problem:
            reason = reason or f"{type(problem).__name__}: {problem}"[:300]
            continue
        built = built or make
        try:
            return make, example, signal_of(model, example), ""
        except Exception as problem:
            reason = reason or f"{type(problem).__name__}: {problem}"[:300]


def _built(make: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = make()
    return model


def signal_of(model: nn.Module, example: Any) -> Record:
    """A run forward and backward: whether the output is finite and depends on the input, and which weights are dead.

    Modules are in evaluation mode but for batch norms. The loss is the cross-entropy of labels drawn at random over
    log V, the loss of who knows nothing; ``None`` where the output is no distribution over classes.
    """
    model.eval()
    for module in model.modules():
        module.training = isinstance(module, nn.modules.batchnorm._BatchNorm)
    args, kwargs = arguments(example)
    torch.manual_seed(0)
    leaves = [leaf for leaf in tree_leaves(model(*args, **kwargs)) if isinstance(leaf, Tensor)]
    output = next(leaf for leaf in leaves if leaf.is_floating_point() and leaf.requires_grad and leaf.numel() > 1)
    labels = torch.randint(output.shape[-1], output.shape[:-1])
    is_distribution = output.ndim in (2, 3) and output.shape[-1] >= 100
    loss = nn.functional.cross_entropy(output.flatten(0, -2), labels.flatten()) if is_distribution else None
    (output * torch.randn_like(output)).sum().backward()
    dead = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is not None and not parameter.grad.any()
    ]
    model.zero_grad()
    values = output.detach().double()
    return {
        "finite": bool(values.isfinite().all()),
        "constant": bool((values[0] == values[-1]).all()) if len(values) > 1 else bool((values == values.mean()).all()),
        "std": float(values.std()),
        "dead": dead,
        "loss": None if loss is None else float(loss) / math.log(output.shape[-1]),
    }


def _from_meta(make: Any, example: Any, library: dict[str, Tensor]) -> Record:
    """Which buffers a model from the meta device lacks, and which differ from those that its library made."""
    try:
        with torch.device("meta"):
            model = make()
    except Exception as problem:
        return {"meta": f"{type(problem).__name__}: {problem}"[:300]}
    try:
        wp.initialize(model, example=example, device="cpu")
    except Exception as problem:
        return {"meta": f"{type(problem).__name__}: {problem}"[:300]}
    buffers = dict(model.named_buffers())
    lacking = [name for name, buffer in buffers.items() if buffer.is_meta]
    differing = [
        name
        for name, buffer in buffers.items()
        if name in library and not buffer.is_meta and not torch.equal(buffer, library[name])
    ]
    return {"meta": "", "lacking": lacking, "differing": differing}


def report(records: list[Record]) -> None:
    """Print what the census found, for each library and in whole."""
    libraries = sorted({record["library"] for record in records})
    groups = {name: [record for record in records if record["library"] == name] for name in libraries}
    counts = {name: _counts(group) for name, group in groups.items()}
    print("| count | " + " | ".join(libraries) + " |\n| --- |" + " --: |" * len(libraries))
    for row in dict.fromkeys(key for each in counts.values() for key in each):
        print(f"| {row} | " + " | ".join(str(counts[name].get(row, "")) for name in libraries) + " |")
    for title, lines in _lists(records).items():
        if lines:
            print(f"\n## {title} ({len(lines)})\n\n" + "\n".join(lines))


def _counts(records: list[Record]) -> dict[str, Any]:
    built = [record for record in records if record["status"] != "not built"]
    started = [record for record in built if record["status"] == "started"]
    ran = [record for record in started if "ours" in record]
    status = collections.Counter(record["status"] for record in records)
    counts: dict[str, Any] = {
        "families": len(records),
        "not built": status["not built"],
        "started": f"{len(started)} of {len(built)} ({len(started) / max(1, len(built)):.1%})",
        "refused": status["refused"],
        "crashed": status["crashed"],
        "started, and ran": len(ran),
        "output not finite": sum(not record["ours"]["finite"] for record in ran),
        "output constant": sum(record["ours"]["constant"] for record in ran),
        "with dead weights": sum(bool(record["dead"]) for record in ran),
        "from meta": sum(record.get("meta") == "" for record in started),
        "from meta, buffers lacking": sum(bool(record.get("lacking")) for record in started),
        "from meta, buffers differing": sum(bool(record.get("differing")) for record in started),
    }
    for width, pairs in ((WIDTH, list(_losses(ran, wide=False))), (WIDE, list(_losses(ran, wide=True)))):
        if pairs:
            high = [(own, ours) for _, own, ours in pairs if ours > HIGH]
            further = sum(abs(ours - 1) > abs(own - 1) for own, ours in high)
            middle = sorted(ours for *_, ours in pairs)[len(pairs) // 2]
            counts |= {
                f"loss over log V at width {width}, median": f"{middle:.2f}",
                f"loss above {HIGH} log V at width {width}": f"{len(high)} of {len(pairs)}",
                f"loss above {HIGH} log V at width {width}, by the libraries": sum(own > HIGH for _, own, _ in pairs),
                f"loss above {HIGH} log V at width {width}, further off than the libraries'": further,
            }
    return counts


def _losses(records: Iterable[Record], *, wide: bool) -> Iterator[tuple[str, float, float]]:
    for record in records:
        own = record.get("own_wide") if wide else record["own"]["loss"]
        ours = record.get("ours_wide") if wide else record["ours"]["loss"]
        if own is not None and ours is not None:
            yield record["name"], own, ours


def _lists(records: list[Record]) -> dict[str, list[str]]:
    def of(status: str) -> list[str]:
        return [f"{_label(record)}: {record['reason']}" for record in records if record["status"] == status]

    ran = [record for record in records if "ours" in record]
    refused = [record for record in records if record["status"] == "refused"]
    lost: collections.Counter[str] = collections.Counter()
    for record in refused:
        lost.update({path.rpartition(".")[2] for path in re.findall(r"\n  (\S+) \(", record["reason"])})
    return {
        "Crashed": of("crashed"),
        "Refused": [
            f"{_label(record)}: " + _in_short(record["reason"]) for record in records if record["status"] == "refused"
        ],
        "Unclaimed, in how many models": [f"{count} {name}" for name, count in lost.most_common(60)],
        "Output not finite or constant": [
            f"{_label(record)}" for record in ran if record["ours"]["constant"] or not record["ours"]["finite"]
        ],
        "Dead weights": [f"{_label(record)}: {', '.join(record['dead'][:6])}" for record in ran if record["dead"]],
        "Loss over log V: name, the library's and ours": [
            f"{name} at {width}: {own:.2f}, {ours:.2f}"
            for width, wide in ((WIDTH, False), (WIDE, True))
            for name, own, ours in _losses(ran, wide=wide)
            if ours > HIGH and ours > own
        ],
        "From meta, not started": [f"{_label(record)}: {record['meta']}" for record in records if record.get("meta")],
        "From meta, buffers lacking": [
            f"{_label(record)}: {', '.join(record['lacking'][:6])}" for record in records if record.get("lacking")
        ],
        "From meta, buffers differing": [
            f"{_label(record)}: {', '.join(record['differing'][:6])}" for record in records if record.get("differing")
        ],
        "Not run": [f"{_label(record)}: {record['not_run']}" for record in records if record.get("not_run")],
        "Not built": of("not built"),
    }


def _label(record: Record) -> str:
    return f"{record['library']} {record['family']} {record['name']}"


def _in_short(reason: str) -> str:
    return ", ".join(re.findall(r"\n  (\S+ \(.*)", reason)[:4]) or reason[:200]


def main() -> None:
    """Take the census, or print what shards of it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", choices=("timm", "transformers"), help="one library alone")
    parser.add_argument("--shard", default="0/1", metavar="i/n", help="every n-th model, from the i-th on")
    parser.add_argument("--only", default="*", metavar="GLOB", help="families or names that match")
    parser.add_argument("--out", type=Path, help="file for the findings, a line of JSON a model")
    parser.add_argument("--report", type=Path, nargs="+", metavar="FILE", help="print what these files hold")
    options = parser.parse_args()
    if options.report:
        report([json.loads(line) for path in options.report for line in path.read_text().splitlines()])
        return
    warnings.filterwarnings("ignore")
    first, count = map(int, options.shard.split("/"))
    libraries = [options.library] if options.library else ["timm", "transformers"]
    chosen = [each for library in libraries for each in specimens(library)]
    chosen = [s for s in chosen if any(fnmatch.fnmatch(text, options.only) for text in (s.family, s.name))]
    torch.set_num_threads(1)  # a process that has threads cannot be forked
    records = []
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(options.out.open("a+")) if options.out else None
        if out is not None:
            out.seek(0)
            records = [json.loads(line) for line in out]
        known = {(record["family"], record["name"]) for record in records}
        for specimen in chosen[first::count]:
            if (specimen.family, specimen.name) in known:
                continue
            records.append(census(specimen))
            print(f"{_label(records[-1])}: {records[-1]['status']}, {records[-1]['seconds']} s", flush=True)
            if out is not None:
                print(json.dumps(records[-1]), file=out, flush=True)
    report(records)


if __name__ == "__main__":
    main()
