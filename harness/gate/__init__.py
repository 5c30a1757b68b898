"""Verdicts: policies, paired comparisons against a floor of noise, and their reports."""
