"""Requests: from what was asked to a spec, its models, a recorded run, and its answer."""
