"""What a study leaves beside the JSON of its runs: study.md with tables and tests, and plots."""

from __future__ import annotations

from pathlib import Path

from relvlm import storage
from relvlm.evals.tables import markdown
from relvlm.study import plots, tables
from relvlm.study.plan import Plan
from relvlm.study.selection import selection_lines

NOTE = (
    "Mean ± standard deviation over seeds. The interval holds both seeds and examples: the variance over seeds divided "
    "by their number, plus that over examples, which all seeds share. Tests are paired over seeds (t), corrected for "
    "their number (Holm); bold: p < .05."
)


SELECTION = (
    "When to stop: the same figures at the evaluated checkpoint that is best by a figure on dev, and at the best one "
    "of each figure, which no rule can know."
)


def report(plan: Plan) -> str:
    """Write it into the plan's folder of tables and plots; returns the text of study.md."""
    folder, parts = Path(plan.report or plan.results), [f"# {plan.name}\n\n{NOTE}"]
    for budget in plan.budgets:
        results = tables.read_results(plan, budget)
        if not any(results.values()):
            continue
        parts.append(f"## Budget: {budget.name}\n\n{markdown(tables.main_lines(plan, results))}")
        tests = tables.test_lines(plan, results)
        if len(tests) > 1:
            parts.append(markdown(tests))
        titles = tables.figures_of(plan, results)
        if len(chosen := selection_lines(results, titles)) > 1:
            parts.append(f"{SELECTION}\n\n{markdown(chosen)}")
        drawn = plots.plot(results, titles, folder / "plots", budget.name)
        parts += [f"![{path.stem}](plots/{path.name})" for path in drawn]
        hours = sum(result["hours"] for seeds in results.values() for result in seeds.values())
        machines = {result["machine"] for seeds in results.values() for result in seeds.values()}
        commits = {result["commit"] for seeds in results.values() for result in seeds.values() if result.get("commit")}
        made_by = f" Commits: {', '.join(sorted(commits))}." if commits else ""
        parts.append(f"{hours:.2f} hours of one thread; {'; '.join(sorted(machines))}.{made_by}")
    text = "\n\n".join(parts) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_whole(folder / "study.md", text)
    return text
