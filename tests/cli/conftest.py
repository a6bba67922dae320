"""What the tests of the commands share."""

import pytest

LEARN = ("--task", "sst2", "--epochs", 6, "--lr", 2e-3)


@pytest.fixture(scope="module")
def measured(tiny, animals, tmp_path_factory):
    """A home with a dense and a sparse fine-tuning of two seeds."""
    from tests.conftest import run_jdna

    home = tmp_path_factory.mktemp("home")
    for seed in (1, 2):
        for pruned in ((), ("--sparsity", 0.8), ("--pattern", "1:8")):
            found = run_jdna(
                "finetune", tiny("bert"), *pruned, *LEARN, "--data-dir", animals, "--seed", seed,
                "--home", home,
            )  # fmt: skip
            assert found.code == 0, found.err
    return home
