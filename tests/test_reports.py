"""Reports say what the database says, and that there is nothing where there is nothing."""

import pytest

from tests.test_ways import SMALL


@pytest.fixture
def measured(jdna, bert):
    """Dense, pruned, rounded and taught; measured in time, and looked upon."""
    jdna("finetune", bert, *SMALL)
    for way in (("--sparsity", 0.5, "--dynamics", "--dynamics-every", 8), ("--quantize", 4),
                ("--sparsity", 0.9, "--teacher", "run:1")):  # fmt: skip
        jdna("finetune", bert, *SMALL, *way)
    jdna("prune", bert, "--pattern", "2:4", "--packed")
    for run in (1, 3):
        jdna("eval", f"run:{run}", "--task", "living", "--time")
    return jdna


def test_pruning_and_rounding_stand_side_by_side_by_size(measured, tmp_path):
    rows = measured("report", "compression", "--format", "json").json
    sizes = [row["bits_per_weight"] for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert [row["criterion"] for row in rows] == ["magnitude", None, "magnitude"]
    half, rounded, most = rows
    # A mask of one bit, and the kept values of 32 bits.
    assert half["bits_per_weight"] == pytest.approx(1 + 0.5 * 32, abs=0.01)
    assert most["bits_per_weight"] == pytest.approx(1 + 0.1 * 32, abs=0.01)
    assert (rounded["quantization"], rounded["bits"]) == ("4 bits symmetric per channel", 4)
    found = measured("report", "compression", "--plot", tmp_path / "c.png").out
    assert "Compression · TinyBERT · living · dense" in found
    assert "quantized · symmetric per channel" in found
    assert (tmp_path / "c.png").stat().st_size > 10_000


def test_cost_is_what_was_measured_and_says_where_there_is_no_gain(measured, tmp_path):
    rows = measured("report", "cost", "--format", "json").json
    packed = [row for row in rows if row["bytes"] and row["bytes"] < row["dense_bytes"]]
    assert [row["pattern"] for row in packed] == ["2:4"]
    timed = [row for row in rows if row["latency_ms"] is not None]
    dense, sparse = timed
    assert dense["speed_up"] == 1
    assert sparse["speed_up"] == pytest.approx(dense["latency_ms"] / sparse["latency_ms"])
    found = measured("report", "cost", "--plot", tmp_path / "c.svg").out
    assert "Cost · size on disk" in found
    said = "No gain in time" in found
    assert said == (sparse["speed_up"] < 1.05)
    assert (tmp_path / "c.svg").is_file()


def test_dynamics_tell_where_each_run_ended(measured, tmp_path):
    rows = measured("report", "dynamics", "--format", "json").json
    assert {row["step"] for row in rows} == {0, 8, 16, 24}
    found = measured("report", "dynamics", "--plot", tmp_path / "d.pdf").out
    assert "sparse 50% · seed 41" in found
    assert (tmp_path / "d.pdf").is_file()


def test_the_drop_of_what_was_rounded_or_taught_has_its_own_table(measured):
    found = measured("report").out
    assert "quantized · symmetric per channel" in found
    assert "4 bits" in found
    assert "taught by TinyBERT (dense)" in found


@pytest.mark.parametrize("name", ["compression", "cost", "dynamics"])
def test_an_empty_report_says_what_would_fill_it(jdna, bert, name):
    jdna("finetune", bert, *SMALL)
    found = jdna("report", name, code=2)
    assert len(found.err.strip().splitlines()) == 1
    assert "yet" in found.err or "nothing to report" in found.err
    jdna("report", name, "--plot", "x.png", code=2)
    assert jdna("report", name, "--format", "json").json == []
