"""The command ``wellposed init``: the first weights of a model of any size, written to files or checked."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from wellposed.cli.bytes_bar import BytesBar
from wellposed.cli.json_option import Json, print_json

FINDINGS = 1


class DType(StrEnum):
    """What a model can be converted to."""

    float32 = "float32"
    float64 = "float64"
    bfloat16 = "bfloat16"
    float16 = "float16"


class FileFormat(StrEnum):
    """How the files are meant to be read."""

    safetensors = "safetensors"
    dcp = "dcp"


def init(
    factory: Annotated[
        str,
        typer.Argument(metavar="PKG.MODULE:FACTORY", help="What makes the model: a function or class."),
    ],
    out: Annotated[Path, typer.Option(help="The folder for the files.")],
    scheme: Annotated[str, typer.Option(help="The name of a scheme.")] = "auto",
    seed: Annotated[int, typer.Option(help="Where all numbers come from.")] = 0,
    dtype: Annotated[
        DType | None, typer.Option(help="What the model is converted to.", show_default="as the factory makes it")
    ] = None,
    shard_size: Annotated[str, typer.Option(help="The largest size of a file, as 5GB or 512MiB.")] = "5GB",
    rules: Annotated[
        Path | None, typer.Option(help="A TOML or JSON file: globs on parameters' paths, and initializers.")
    ] = None,
    file_format: Annotated[
        FileFormat, typer.Option("--format", help="dcp has tied weights under all their names.")
    ] = FileFormat.safetensors,
    verify: Annotated[bool, typer.Option("--verify", help="Check the files against the seed; write nothing.")] = False,
    json_: Json = False,
) -> None:
    """Write the first weights of a model to safetensors files, however large it is.

    The model is never in memory. Interrupted, the same command goes on from the files that are finished. Started
    several times, the processes share the work.
    """
    import torch

    from wellposed.cli.rule_files import rules_from
    from wellposed.init import verify_checkpoint, write_checkpoint
    from wellposed.init.checkpoints.factories import factory_from

    build = factory_from(factory)
    ruled = None if rules is None else rules_from(rules)
    cast = None if dtype is None else getattr(torch, dtype)
    with BytesBar(Console(stderr=True), "compared" if verify else "written") as bar:
        if verify:
            wrong = verify_checkpoint(build, out, scheme, seed=seed, rules=ruled, dtype=cast, progress=bar)
        else:
            plan = write_checkpoint(
                *(build, out, scheme),
                seed=seed,
                rules=ruled,
                dtype=cast,
                shard_size=shard_size,
                file_format=file_format.value,
                progress=bar,
            )
    if not verify:
        if json_:
            print_json({"out": str(out), "plan": plan.to_dict()})
        else:
            typer.echo(f"The weights are in {out}, scheme {plan.scheme}, seed {seed}.")
        return
    if json_:
        print_json({"out": str(out), "wrong": wrong})
    else:
        typer.echo("\n".join(f"{name} {what}" for name, what in wrong.items()) or f"All in {out} is as it should be.")
    if wrong:
        raise typer.Exit(FINDINGS)
