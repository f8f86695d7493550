"""What changes a model for a while, and always undoes it.

Here: context managers on activations, on value vectors and on the subject's embeddings; many sets of neurons at once;
states of corrupted runs restored, many at once; masks on all neurons; what silent sets are worth. Not here: which
neurons to change (``scoring``), and what a change means for a claim (``evaluation``).
"""
