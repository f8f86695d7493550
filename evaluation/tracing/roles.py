"""What the tokens of a prompt are to its subject and its answer."""

from __future__ import annotations

from collections.abc import Mapping

ROLES = {
    "before": "tokens before the subject",
    "first_subject": "first subject token",
    "middle_subject": "middle subject tokens",
    "last_subject": "last subject token",
    "first_after": "first subsequent token",
    "further": "further tokens",
    "answer": "answer position",
}
"""Role -> what figures call it. In causal models the answer position is the last token."""


def roles_of(start: int, end: int, answer: int, n_tokens: int) -> Mapping[str, list[int]]:
    """The tokens of each role; roles that no token has are left out.

    A token may have two: the subject's only token is its first and its last, and the token at the answer position may
    be the first after the subject.

    >>> roles_of(1, 2, 4, 5)
    {'before': [0], 'first_subject': [1], 'last_subject': [1], 'first_after': [2], 'further': [3], 'answer': [4]}

    Parameters
    ----------
    start, end : the subject's first token, and one more than its last.
    answer : the token at which the answer is predicted.
    """
    others = [token for token in range(n_tokens) if token != answer and not start <= token < end]
    found = {
        "before": [token for token in others if token < start],
        "first_subject": [start],
        "middle_subject": list(range(start + 1, end - 1)),
        "last_subject": [end - 1],
        "first_after": [end] if end < n_tokens else [],
        "further": [token for token in others if token > end],
        "answer": [answer],
    }
    return {role: tokens for role, tokens in found.items() if tokens}
