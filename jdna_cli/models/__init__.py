"""Models on disk and in memory: fetched, checked, described, loaded, saved."""
