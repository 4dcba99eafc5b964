"""The findings of a study: a sentence each, made of the figures and left out where they do not support it."""

from collections.abc import Callable, Sequence

from wellposed.study.results import dropout_findings, initializer_findings, joint_findings, penalty_findings
from wellposed.study.results.judge import Judge, Sentence, judge_of
from wellposed.study.results.summary import Summary
from wellposed.study.training.network import ACTIVATIONS


def findings(results: Summary) -> list[dict[str, str]]:
    """The findings of a study.

    Args:
        results: What ``results.json`` holds, less the findings.

    Returns:
        For each finding its experiment and its text.
    """
    judge = judge_of(results)
    found = []
    for experiment, rules in RULES.items():
        for rule in rules:
            text = rule(results["experiments"][experiment], judge)
            if text:
                found.append({"experiment": experiment, "text": text})
    return found


RULES: dict[str, Sequence[Callable[[list[Summary], Judge], Sentence]]] = {
    "together": (joint_findings.all_of_it, joint_findings.one_by_one),
    "initializers": (
        initializer_findings.of_he,
        initializer_findings.vanishing_gradient,
        *map(initializer_findings.best_start, ACTIVATIONS),
        initializer_findings.theory,
    ),
    "penalties": (penalty_findings.zeros, penalty_findings.sparsest, penalty_findings.best_penalty),
    "dropout": (
        dropout_findings.generalization_gap,
        dropout_findings.test_score,
        dropout_findings.ensemble_against_scaling,
        dropout_findings.too_much,
    ),
}
