"""The wheel holds all that the tool needs, away from its source tree."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(tmp_path, bert):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    subprocess.run([*build, TOP], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("jdna-*.whl")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True, symlinks=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    # Its dependencies are borrowed from here; jdna itself is found in its own site-packages first.
    (own,) = environment.glob("lib/python*/site-packages")
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("JDNA", "PYTHON"))}

    def run(*command):
        done = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = run(python, "-c", "import jdna_cli; print(jdna_cli.__file__)")
    assert found.startswith(str(own))
    told = run(environment / "bin" / "jdna", "prune", str(bert), "--sparsity", "0.5", "--json")
    assert json.loads(told)["run"]["status"] == "finished"
    assert (tmp_path / "jdna-runs" / "jdna.db").is_file()
    assert "living" in run(environment / "bin" / "jdna", "tasks", "list")
    # Published curves, and the template of the page.
    jdna = environment / "bin" / "jdna"
    assert "SST-2 (easy)" in run(jdna, "report", "paper", "cross-task")
    run(jdna, "report", "runs", "--html", "report.html")
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()
