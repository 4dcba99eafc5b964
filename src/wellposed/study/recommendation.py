"""The network that a study recommends: trained once more, kept in safetensors, with the code around it."""

import json
from collections.abc import Mapping
from importlib.resources import files
from itertools import pairwise
from typing import Any

from torch import Tensor

from wellposed import init
from wellposed.configuration.dictionaries import to_dict
from wellposed.random.key import Key
from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.needs import need
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.measures import BALANCED, R_SQUARED, log_shares, measure_of
from wellposed.study.training.network import DenseNetwork
from wellposed.study.training.splits import split
from wellposed.study.training.train import TrainingRun, one_thread, train


def recommend(run: TrainingRun, data: Dataset) -> tuple[bytes, str]:
    """Train the recommended network on the first seed's rows and write the code that goes with it.

    Args:
        run: The configuration.
        data: The dataset.

    Returns:
        The content of ``network.safetensors``, whose metadata say how a row of the table becomes inputs; and of
        ``recommended.py``, which starts and trains such a network, rebuilds this one and predicts with it.
    """
    with one_thread():
        trained = train(run, data)
    parts, measure = trained.parts, measure_of(data)
    odds = log_shares(parts.y["train"], parts.outputs).tolist() if measure == BALANCED else None
    table = {
        "columns": [encoding.plain() for encoding in parts.encodings],
        "classes": list(data.classes),
        "center": list(parts.center),
        "log_shares": odds,
    }
    state = _sequential(trained.network, dropout=run.p > 0)
    content: bytes = need("safetensors.torch").save(state, metadata={"table": json.dumps(table)})
    return content, _code(run, data, parts.inputs, parts.outputs, measure)


def arguments(run: TrainingRun, data: Dataset) -> dict[str, Any]:
    """A configuration as the arguments of the estimators in ``wellposed.sklearn``: plain values, ready for JSON."""
    method = PENALTIES[run.penalty]
    rows = run.rows or len(split(data, Key(run.seed).fold("split")).rows["train"])
    return {
        "hidden": list(run.hidden),
        "activation": run.activation,
        "scheme": "torch" if run.start == "torch" else to_dict(STARTS[run.start].weight),
        "penalty": None if method.make is None else to_dict(method.make(run.strength)),
        "mode": method.mode,
        "dropout": run.p,
        "learning_rate": run.rate,
        "batch_size": run.batch,
        "max_epochs": max(1, round(run.steps * run.batch / rows)),
    }


def _sequential(network: DenseNetwork, *, dropout: bool) -> Mapping[str, Tensor]:
    """The network's values by the names that they have in a ``torch.nn.Sequential``."""
    step = 3 if dropout else 2
    return {
        f"{step * number}.{name}": value.detach().clone()
        for number, layer in enumerate(network.layers)
        for name, value in layer.named_parameters()
    }


def _code(run: TrainingRun, data: Dataset, inputs: int, outputs: int, measure: str) -> str:
    template = (files("wellposed.study") / "recommended.py.jinja").read_text(encoding="utf-8")
    jinja = need("jinja2")
    environment = jinja.Environment(undefined=jinja.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["repr"] = repr
    method, sizes = PENALTIES[run.penalty], [inputs, *run.hidden, outputs]
    text: str = environment.from_string(template).render(
        run=run,
        sizes=sizes,
        hidden=list(pairwise(sizes[:-1])),
        data=data,
        weight=None if run.start == "torch" else _in_code(STARTS[run.start].weight),
        penalty=None if method.make is None else f"wp.{method.make(run.strength)!r}",
        mode=method.mode,
        regression=measure == R_SQUARED,
        balanced=measure == BALANCED,
    )
    return text


def _in_code(initializer: init.Initializer) -> str:
    return f"wp.init.{initializer!r}"
