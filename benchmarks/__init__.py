"""Adamas beside its peers: ratios of medians of interleaved runs in one process."""
