"""Which weights go: scores, exact selection, masks, regimes. A library on plain tensors."""
