"""The commands of `jdna`, one file each."""
