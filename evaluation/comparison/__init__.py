"""The comparison of methods: every method on the same facts, judged by interventions.

Here: settings, the two stages (scores, effects) in resumable units, control texts and control neurons, curves,
agreement, factor × factor grids. Not here: what is read off the rows afterwards (``report``).
"""
