"""Whole experiments: files, cells, and the engines that run them."""
