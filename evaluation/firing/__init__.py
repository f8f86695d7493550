"""When neurons fire: a fact's neurons on texts that hold its subject, its answer, both or neither.

Here: texts and what they hold, the groups of the published and of the unconfounded design, and the experiment that
compares a fact's neurons over them. Not here: which texts of a corpus activate a neuron most (``reading``).
"""
