"""Planted facts: facts written into chosen neurons, and the benchmark that knows where they are.

Here: a plant and its weights, how one is trained and verified, the axes of difficulty, the shipped suite, the benchmark
and its result. Not here: facts injected into random value vectors (``protocols``).
"""
