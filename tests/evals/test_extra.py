"""Who installs the extra `eval` alone evaluates and reports."""

from support.extras import command, run_with


def test_an_evaluation_and_its_report_need_no_library_of_training(checkpoint, suite, tmp_path):
    folder, out = checkpoint(tmp_path / "run" / "checkpoints", 10), tmp_path / "run" / "eval"
    scored = command("eval", "--checkpoint", folder, "--suite", suite, "--out", out)
    said = run_with("eval", scored + command("report", tmp_path / "run", "--out", tmp_path / "report"))
    assert "SugarCrepe" in said and (tmp_path / "report/report.html").exists()
