"""From a spec to plain numbers and files, one file per command. Knows no database."""
