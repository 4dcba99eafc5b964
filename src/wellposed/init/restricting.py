"""The rows of a plan that are about a part of the model, such as the stage of a pipeline."""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from wellposed.errors import WellposedError
from wellposed.init.plan import Plan
from wellposed.models.names import joined, listed, plain_path
from wellposed.models.weights import weights


def restrict(plan: Plan, part: nn.Module, names: str | Callable[[str], str] = "") -> Plan:
    """The plan for a part of the model, which then starts as it does in the whole.

    What a weight starts as depends on the model around it: how many residual branches there are, what follows it, its
    path. So the whole is planned, which takes no memory on the meta device, and of that the part's rows are taken, with
    the keys that they have in the whole.

    Args:
        plan: The plan of the whole model.
        part: A part of it, such as the stage of a pipeline that this process holds, in any wrappers.
        names: What the part's weights are called in the whole, if other than in the part: the path of the part, or a
            function from a path in the part, without what wrappers put into it, to the one in the whole.

    Returns:
        A plan for the part, to be applied and audited.

    Raises:
        WellposedError: If a weight of the part is not in the plan.

    Example:
        >>> import torch, wellposed as wp
        >>> with torch.device("meta"):
        ...     whole = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> stage = nn.Sequential(nn.Linear(8, 2))
        >>> plan = restrict(wp.plan_initialize(whole), stage, lambda name: name.replace("0.", "2."))
        >>> wp.init.apply(plan, stage)
        >>> plan["0.weight"].stream
        ('2.weight',)
    """
    rows: dict[str, list[int]] = {}
    for i, row in enumerate(plan.rows):
        for path in {row.name, row.stream[0], *row.others} if row.block is None else {row.name, *row.others}:
            rows.setdefault(path, []).append(i)
    found, missing = [], []
    for weight in weights(part):
        plain = [plain_path(part, path) for path in weight.names]
        paths = [names(path) if callable(names) else joined(names, path) for path in plain]
        here = next((rows[path] for path in paths if path in rows), None)
        if here is None:
            missing.append(paths[0])
            continue
        found += [replace(plan.rows[i], name=weight.name, others=weight.others) for i in here]
    if missing:
        raise WellposedError(
            f"the plan has no row for {listed(missing)}; plan the model that this is a part of, and give the names "
            "that its weights have there: names='path.of.the.part', or a function from names to names"
        )
    return replace(plan, rows=tuple(found), buffers=())
