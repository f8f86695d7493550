"""A Hugging Face language model seen as layers of feed-forward neurons.

Here: where the neurons are in each family, loading and validating a model, `NeuronModel` itself, one pass through it,
what it answers, how it is run and what that costs, the shipped models' folders. Not here: the objective as a function
of activations (``forward``), and whatever changes activations or weights (``interventions``).
"""
