"""Baseline and candidate -> verdicts."""
