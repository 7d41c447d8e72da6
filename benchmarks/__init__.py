"""Benchmarks: ratios against rivals that are measured in the same run."""
