"""Databases of the tests."""

import pytest

from jdna_cli.store.ledger import Ledger


@pytest.fixture(params=["sqlite", "postgres"])
def server(request):
    """The URL of an empty database, None for the home's own file."""
    return request.getfixturevalue("postgres")() if request.param == "postgres" else None


@pytest.fixture
def ledger(tmp_path, server):
    opened = Ledger(tmp_path / "home", server)
    yield opened
    opened.close()


@pytest.fixture
def on_file(tmp_path):
    opened = Ledger(tmp_path / "home")
    yield opened
    opened.close()
