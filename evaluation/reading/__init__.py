"""Neurons as key-value memories: which texts activate them most, which words they write, what is known by which layer.

Here: contexts of a corpus, the highest activations of all neurons at once, value vectors through the unembedding, their
agreement, early exits, and the experiment that shows them for a fact's neurons. Not here: what neurons are for by
interventions (``comparison``).
"""
