"""What experiments measure, one thing at a time.

Here: which facts a model knows, what an intervention does to its answers, metrics, plain words, perplexity, the
parameter-randomisation check. Not here: which neurons or texts are compared with which (the experiments' rooms).
"""
