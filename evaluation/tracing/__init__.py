"""Causal tracing: which restored states bring an answer back when the subject is corrupted (Meng et al. 2022).

Here: the experiment, roles of tokens, what tracing is compared with (layer profiles of methods, suppressed layers),
its result, figures and answer. Not here: how states are restored (``kn_attrib.interventions``).
"""
