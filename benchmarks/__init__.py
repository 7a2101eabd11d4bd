"""Benchmarks: one script a claim; each runs Headwater beside its reference and prints their ratio."""
