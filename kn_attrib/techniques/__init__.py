"""Mathematics that several scoring methods share.

Here: path integrals and quadrature, lines of input embeddings, the residual stream with early exits, frozen norms,
rules for gradients, deciles; and the one place that calls private functions of Captum. Not here: a published method
(``methods``), nor anything that one method alone needs.
"""
