"""Means, intervals and tests for facts nested in relations.

Here: hierarchical bootstrap, paired differences, sign-flip and equivalence tests, Holm's correction. Nothing here knows
what the numbers are of.
"""
