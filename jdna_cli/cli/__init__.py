"""The command line: options, commands, consoles, and the boundary at which errors become lines."""
