"""What is pruned after it was trained stands beside the training, and apart from pruned before."""

from tests.conftest import QUICK


def test_a_fine_tuned_model_that_is_pruned_is_compared_with_itself(jdna, bert):
    dense = jdna("finetune", bert, *QUICK, "--max-length", 24, "--json").json
    jdna("prune", "run:1", "--sparsity", 0.4)
    after = jdna("eval", "run:2", "--task", "living", "--json").json
    assert after["run"]["schedule"] == "after training"
    jdna("finetune", bert, *QUICK, "--max-length", 24, "--sparsity", 0.4)
    rows = jdna("report", "--json").json["rows"]
    found = {row["schedule"]: row for row in rows if row["pattern"]}
    assert set(found) == {None, "after training"}  # the same columns but for when
    for row in found.values():
        assert row["dense_score"] == dense["metrics"]["accuracy"]
    # It is measured as it was trained.
    assert jdna("runs", "show", 3, "--json").json["run"]["kind"] == "eval"
    spec = jdna("db", "query", "SELECT spec FROM run WHERE id = 3", "--json").json
    assert '"max_length": 24' in str(spec).replace("'", '"')
