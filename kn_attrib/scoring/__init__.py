"""The scorer interface, and everything between a method's name and the neurons of a fact.

Here: base classes of scorers, the registry and plug-ins, methods by text, running one and checking what it returns,
scores, refinement, the page of all methods. Not here: the methods themselves (``methods``), and judging them
(``evaluation``).
"""
