"""The database of runs: tables, views, migrations, and the ledger that writes to it."""
