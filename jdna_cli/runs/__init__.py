"""One recorded run each: from what was asked to a spec, its models, a record, and its answer."""
