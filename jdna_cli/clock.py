"""Moments: recorded in UTC, shown and asked for in this machine's own time zone."""

from __future__ import annotations

import datetime as dt


def start_of(day: dt.date) -> str:
    """The moment in which a day begins here, in UTC, as databases compare it with theirs."""
    here = dt.datetime.combine(day, dt.time.min).astimezone()
    return here.astimezone(dt.UTC).isoformat(" ")


def local(moment: dt.datetime | str | None) -> str:
    """A recorded moment to the second in the time of this machine, with its zone."""
    if moment is None:
        return ""
    found = dt.datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    if found.tzinfo is None:
        found = found.replace(tzinfo=dt.UTC)
    return found.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
