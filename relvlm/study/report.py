"""What a study leaves beside the JSON of its runs: study.md with tables and tests, and plots."""

from __future__ import annotations

from pathlib import Path

from relvlm import storage
from relvlm.evals.tables import markdown
from relvlm.study import plots
from relvlm.study.plan import Budget, Plan
from relvlm.study.selection import selection_lines, soup_lines
from relvlm.study.soups import DEV, LAST
from relvlm.study.tables import Results, figures_of, held_out_lines, main_lines, read_results, test_lines

SEEDS = "Mean ± standard deviation over seeds."
SHARED = (
    "The interval holds both seeds and examples: the variance over seeds divided by their number, plus that over "
    "examples, which all seeds share."
)
FOLDS = "Each seed has examples of its own, its fold's: the interval is that over seeds."
TESTS = "Tests are paired over seeds (t), corrected for their number (Holm); bold: p < .05."
SELECTION = (
    "When to stop: the same figures at the evaluated checkpoint that is best by a figure on dev, and at the best one "
    "of each figure, which no rule can know."
)

SOUPS = (
    f"Averages of the last {LAST} checkpoints (`--soups`): uniform, exponential, greedy by {DEV}. Beside them the last "
    "step, and the checkpoint that is best by that figure, of the same seeds."
)
HELD_OUT = "On combinations of kinds and relations that no training set shows:"


def report(plan: Plan, command: str = "") -> str:
    """Write it into the plan's folder of tables and plots; returns the text of study.md.

    `command`: what makes the study, for those who read of it.
    """
    folder = Path(plan.report or plan.results)
    parts = [f"# {plan.name}", " ".join((SEEDS, FOLDS if plan.folds else SHARED, TESTS))]
    if command:
        parts.insert(1, f"    {command}")
    for budget in plan.budgets:
        results = read_results(plan, budget)
        if any(results.values()):
            parts += [f"## Budget: {budget.name}", *_parts(plan, budget, results, folder)]
    text = "\n\n".join(parts) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_whole(folder / "study.md", text)
    return text


def _parts(plan: Plan, budget: Budget, results: Results, folder: Path) -> list[str]:
    """Tables, tests, plots of one budget, each a paragraph."""
    titles = figures_of(plan, results)
    parts = [markdown(main_lines(plan, results))]
    if len(tests := test_lines(plan, results)) > 1:
        parts.append(markdown(tests))
    for note, lines in (
        (HELD_OUT, held_out_lines(results, titles)),
        (SELECTION, selection_lines(results, titles)),
        (SOUPS, soup_lines(results, titles)),
    ):
        if len(lines) > 1:
            parts += [note, markdown(lines)]
    drawn = plots.plot(results, titles, folder / "plots", budget.name)
    return [*parts, *(f"![{path.stem}](plots/{path.name})" for path in drawn), _made_by(results)]


def _made_by(results: Results) -> str:
    found = [result for seeds in results.values() for result in seeds.values()]
    hours = sum(result["hours"] for result in found)
    machines = sorted({result["machine"] for result in found})
    commits = sorted({result["commit"] for result in found if result.get("commit")})
    named = f" Commits: {', '.join(commits)}." if commits else ""
    return f"{hours:.2f} hours of one thread; {'; '.join(machines)}.{named}"
