"""Speed and memory, as ratios to a named peer or a limit measured in the same run: `make bench`."""
