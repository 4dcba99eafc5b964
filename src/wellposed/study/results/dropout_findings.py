"""The findings on dropout: the generalization gap, and the ensemble of thinned networks."""

from wellposed.study.estimate import difference
from wellposed.study.results.judge import Judge, Sentence
from wellposed.study.results.summary import Summary
from wellposed.study.wording import count


def generalization_gap(rows: list[Summary], judge: Judge) -> Sentence:
    """How dropout changes the generalization gap, the training score less the test score."""
    wording, plain, best = judge.wording, rows[0], next(row for row in rows if row["chosen"])
    change = difference(best["gap"], plain["gap"])
    if not judge.clear(change):
        return None
    closer = abs(best["gap"]["mean"]) < abs(plain["gap"]["mean"])
    verb = "moves" if best["gap"]["mean"] < 0 or plain["gap"]["mean"] < 0 else "narrows" if closer else "widens"
    return (
        f"Dropout at the p that validation chooses ({best['p']:g}) {verb} the gap between training and test from "
        f"{wording.points(plain['gap'])} to {wording.points(best['gap'])} {wording.unit}."
    )


def test_score(rows: list[Summary], judge: Judge) -> Sentence:
    """What dropout adds to the test score, or takes from it."""
    wording, plain, best = judge.wording, rows[0], next(row for row in rows if row["chosen"])
    change = difference(best["test"], plain["test"])
    if not judge.clear(change):
        return None
    return (
        f"After {count(judge.rows, 'training row')}, p = {best['p']:g} scores {wording.scored(best['test'])} on test, "
        f"against {wording.score(plain['test'])} without dropout ({wording.change(change)})."
    )


def ensemble_against_scaling(rows: list[Summary], judge: Judge) -> Sentence:
    """The average of many thinned networks against one network with its weights scaled, on the same test rows."""
    wording, best = judge.wording, next(row for row in rows if row["chosen"])
    ensemble = best["ensemble"]
    single, many, scaled = ensemble["test"][0], ensemble["test"][-1], ensemble["scaled"]["test"]
    change = difference(many, scaled)
    if change["mean"] is None or change["error"] is None:
        return None
    networks = f"the average of {ensemble['networks'][-1]} thinned networks"
    if judge.clear(change):
        less = "more" if change["mean"] > 0 else "less"
        text = (
            f"At p = {best['p']:g}, {networks} scores {wording.amount(change)} {less} than the one network with its "
            "weights scaled, on the same test rows."
        )
    elif abs(change["mean"]) + change["error"] < 0.01:
        text = (
            f"The one network with its weights scaled stands in for the ensemble: at p = {best['p']:g}, {networks} "
            f"shows no clear difference from it on the same test rows ({wording.change(change)})."
        )
    else:
        return None
    gain = difference(many, single)
    if judge.clear(gain) and (gain["mean"] or 0.0) > 0:
        text += f" A single thinned network scores {wording.amount(gain)} less than that average."
    return text


def too_much(rows: list[Summary], judge: Judge) -> Sentence:
    """The least p from which on each p lowers the validation score clearly, by ten points or more."""
    bad: list[Summary] = []
    for row in sorted(rows[1:], key=lambda row: -row["p"]):
        change = difference(row["validation"], rows[0]["validation"])
        if not judge.clear(change) or (change["mean"] or 0.0) > -0.1:
            break
        bad.append(row)
    if not bad:
        return None
    least, wording = bad[-1], judge.wording
    return (
        f"Too much dropout hurts: at p = {least['p']:g} the network scores "
        f"{wording.score(least['validation'])} on validation after the same number of updates, against "
        f"{wording.score(rows[0]['validation'])} without dropout."
    )
