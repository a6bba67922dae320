"""Which weights go: scores, exact selection, masks, regimes. Usable on plain tensors, torch only."""
