"""The objective as a function of activation rows: what scoring methods ask for.

Here: the plain path, which is the reference; the wave, which runs the rows of all layers in one pass; the clean pass
that it starts from; the guards that compare the two before the wave may answer; memory budgets. Not here: paths,
quadrature and rules of gradients (``techniques``).
"""
