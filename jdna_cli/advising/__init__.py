"""How far a model may be pruned for a task: which run tells most is chosen after each run."""
