"""Every option, once: name, help, unit. Ranges and defaults are those of the specs."""
