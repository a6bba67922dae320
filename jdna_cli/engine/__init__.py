"""Models, training, evaluation: from a spec to plain numbers and files. Knows no database."""
