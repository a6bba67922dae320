"""Shares in words."""


def percent(share: float) -> str:
    """A share as it was asked for: 0.5 is 50%, 0.125 is 12.5%, and never the same as 0.12."""
    return f"{100 * share:.4g}%"
