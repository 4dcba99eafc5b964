"""The four experiments, as lists of training runs: initializers, penalties, dropout rates, and all three together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.training.train import Figures, TrainingRun


@dataclass(frozen=True)
class Settings:
    """The configuration of a study: its network, its training, and its grids of lambda and p.

    Attributes:
        hidden: The width of each hidden layer.
        seeds: How many seeds, from 0.
        steps: Updates a run.
        rate: The learning rate.
        clip: The longest gradient of the loss; a longer one is scaled down to this norm.
        strengths: The grid of lambda.
        rates: The grid of p.
    """

    hidden: tuple[int, ...] = (64,) * 6  # not 100, at which the chapter's Random and Glorot are the same
    seeds: int = 5
    steps: int = 300
    rate: float = 0.1
    clip: float = 2.0
    strengths: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    rates: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)

    def run(self, seed: int = 0) -> TrainingRun:
        """The configuration that the experiments vary: a ReLU network without penalty and without dropout."""
        return TrainingRun(seed, self.hidden, steps=self.steps, rate=self.rate, clip=self.clip)


@dataclass(frozen=True)
class Case:
    """One configuration of an experiment, run once for each seed.

    Attributes:
        experiment: The experiment's name.
        label: Its name in tables and figures.
        runs: One run a seed.
    """

    experiment: str
    label: str
    runs: tuple[TrainingRun, ...]

    @property
    def run(self) -> TrainingRun:
        """The first seed's run, which tells what all have in common."""
        return self.runs[0]


Done = Mapping[TrainingRun, Figures]
Plan = list[Case]


def initializers(settings: Settings, done: Done) -> Plan:
    """Every initialization, on a tanh and on a ReLU network."""
    return [
        _case(settings, "initializers", f"{start.label}, {activation}", activation=activation, start=name)
        for activation in ACTIVATIONS
        for name, start in STARTS.items()
    ]


def dropout(settings: Settings, done: Done) -> Plan:
    """A grid of p, from no dropout on, at the initialization that validation chose."""
    start = chosen_start(settings, done)
    return [_case(settings, "dropout", f"p = {p:g}", start=start, p=p) for p in (0.0, *settings.rates)]


def unpenalised(settings: Settings, done: Done) -> Plan:
    """The network without a penalty, whose largest weights the penalised runs report."""
    return [_case(settings, "penalties", PENALTIES["none"].label, start=chosen_start(settings, done))]


def penalties(settings: Settings, done: Done) -> Plan:
    """Every penalty over the grid of lambda, reporting the weights that are largest without one."""
    (plain,) = unpenalised(settings, done)
    tracked = [tuple(done[run]["weights"]["largest"]) for run in plain.runs]
    return [
        Case(
            "penalties",
            f"{method.label}, lambda = {strength:g}",
            tuple(
                replace(run, penalty=name, strength=strength, tracked=weights)
                for run, weights in zip(plain.runs, tracked, strict=True)
            ),
        )
        for name, method in PENALTIES.items()
        if method.make is not None
        for strength in settings.strengths
    ]


def combined(settings: Settings, done: Done) -> Plan:
    """All three: the chosen penalty and p, and weaker ones, since each was chosen without the other."""
    penalty, thinned = best(penalties(settings, done), done).run, best(dropout(settings, done)[1:], done).run
    return [
        _case(
            settings,
            "together",
            f"all three, lambda = {strength:g}, p = {p:g}",
            start=penalty.start,
            penalty=penalty.penalty,
            strength=strength,
            p=p,
        )
        for strength in (penalty.strength, penalty.strength / 3)
        for p in (thinned.p, thinned.p / 2)
    ]


def together(settings: Settings, done: Done) -> dict[str, Case]:
    """None of the three, each alone at what validation chose, and all three, by name."""
    cases = {
        "none": _case(settings, "together", "None of the three", start="random"),
        "initialization": replace(unpenalised(settings, done)[0], label="Initialization"),
        "regularization": replace(best(penalties(settings, done), done), label="+ regularization"),
        "dropout": replace(best(dropout(settings, done)[1:], done), label="+ dropout"),
        "all": replace(best(combined(settings, done), done), label="All three"),
    }
    return {name: replace(case, experiment="together") for name, case in cases.items()}


Stage = Callable[[Settings, Done], Plan]
# The configurations of one wave may depend on the figures of the waves before it.
WAVES: Sequence[Sequence[Stage]] = (
    (initializers,),
    (dropout, unpenalised),
    (penalties,),
    (combined,),
)


def size(settings: Settings) -> int:
    """The most runs that a study takes; runs that experiments share are counted once."""
    penalised = sum(method.make is not None for method in PENALTIES.values())
    cases = len(ACTIVATIONS) * len(STARTS) + len(settings.rates) + penalised * len(settings.strengths) + 4
    return cases * settings.seeds


def chosen_start(settings: Settings, done: Done) -> str:
    """The initialization that validation chooses on the ReLU network."""
    return best([case for case in initializers(settings, done) if case.run.activation == "relu"], done).run.start


def best(cases: Sequence[Case], done: Done) -> Case:
    """The case of the highest mean score on validation; one that diverged on a seed comes last."""
    return max(cases, key=lambda case: validation(case, done))


def validation(case: Case, done: Done) -> float:
    """The mean score on validation, minus infinity if training diverged on a seed."""
    scores = [done[run]["score"]["validation"] for run in case.runs]
    return float("-inf") if None in scores else sum(scores) / len(scores)


def _case(settings: Settings, experiment: str, label: str, **changes: object) -> Case:
    runs = tuple(replace(settings.run(seed), **changes) for seed in range(settings.seeds))  # type: ignore[arg-type]
    return Case(experiment, label, runs)
