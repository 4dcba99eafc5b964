"""The findings on regularization: exact zeros, and what they cost."""

from wellposed.study.estimate import difference
from wellposed.study.results.judge import Judge, Sentence
from wellposed.study.results.summary import Summary
from wellposed.study.wording import count, number, percentage


def zeros(rows: list[Summary], judge: Judge) -> Sentence:
    """How many weights L1 makes exactly zero, by gradient updates and by proximal steps."""
    step = [row for row in rows if row["penalty"] == "l1"]
    trained = [row for row in rows if row["penalty"] == "l1_proximal" and row["validation"]["mean"] is not None]
    chosen = next((row for row in trained if row["chosen"]), None)
    if chosen is None:
        return None
    left = max(value or 0 for row in step for value in row["zero"]["values"])
    most = max(trained, key=lambda row: row["zero"]["mean"])
    if most["zero"]["mean"] <= 10 * left:
        return None
    text = (
        f"L1 by its gradient leaves {f'at most {left:,.0f}' if left else 'none'} of "
        f"{count(chosen['weights'], 'weight')} exactly zero, at any lambda tried. Proximal steps set "
        f"{percentage(chosen['zero']['mean'] / chosen['weights'])} of them to exactly zero at the lambda that "
        f"validation chooses ({number(chosen['strength'])})"
    )
    if most is not chosen:
        text += f", and {percentage(most['zero']['mean'] / most['weights'])} at {number(most['strength'])}"
    return f"{text}."


def sparsest(rows: list[Summary], judge: Judge) -> Sentence:
    """The largest sparsity that costs 2 points of the validation score or less."""
    wording, plain = judge.wording, next(row for row in rows if row["penalty"] == "none")
    kept = []
    for row in rows:
        change = difference(row["validation"], plain["validation"])
        if row["penalty"] != "l1_proximal" or change["mean"] is None or change["error"] is None:
            continue
        if change["mean"] - change["error"] > -0.02 and row["zero"]["mean"] > 0.05 * row["weights"]:
            kept.append((row["zero"]["mean"], row, change))
    if not kept:
        return None
    zero, row, change = max(kept, key=lambda entry: entry[0])
    verdict = "" if judge.clear(change) else ", no clear difference"
    return (
        f"With {percentage(zero / row['weights'])} of its weights at zero (L1, proximal, lambda = "
        f"{number(row['strength'])}) the network scores {wording.scored(row['validation'])} on validation, against "
        f"{wording.score(plain['validation'])} without a penalty ({wording.change(change)}{verdict})."
    )


def best_penalty(rows: list[Summary], judge: Judge) -> Sentence:
    """The test score with the penalty that validation chooses, against none."""
    wording, plain = judge.wording, next(row for row in rows if row["penalty"] == "none")
    rivals = [row for row in rows if row["chosen"] and row["penalty"] != "none"]
    trained = [row for row in rivals if row["validation"]["mean"] is not None]
    if not trained:
        return None
    best = max(trained, key=lambda row: row["validation"]["mean"])
    change = difference(best["test"], plain["test"])
    if not judge.clear(change):
        return None
    return (
        f"Of all penalties validation chooses {best['label']} at lambda = {number(best['strength'])}: after "
        f"{count(judge.rows, 'training row')} it scores {wording.scored(best['test'])} on test, against "
        f"{wording.score(plain['test'])} without a penalty ({wording.change(change)})."
    )
