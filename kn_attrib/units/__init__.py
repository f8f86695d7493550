"""Units other than neurons, seen through the same interface.

Here: a view of a model whose "neurons" are directions (NMF, PCA) or attention heads. Not here: text such as
``"ablation@heads"`` (``scoring.method_specs``).
"""
