"""Two published protocols: INJ (facts injected into random value vectors) and DEL (top neurons dropped).

Here: both experiments, fine-tuning of value vectors, rankings by share, their result and tables. Not here: the planted
benchmark, which is our own (``planted``).
"""
