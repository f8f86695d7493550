"""The logit lens: what the model would answer behind each of its layers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.given import check_model
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.techniques.residual_stream import check_exit, exit_early, follow


@torch_defaults()
def logit_lens(model: NeuronModel, prompts: Sequence[Prompt]) -> pd.DataFrame:
    """Log-probability and rank of the answer behind every layer, through final norm and unembedding.

    ``log softmax(W_U · norm(h_l))_y``, ``h_l`` the residual stream at the answer position behind the block of layer
    ``l``; behind the last one it is the model's own answer. One forward pass per prompt, and the head once per layer.

    Parameters
    ----------
    model : from `load_model`.
    prompts : queries, such as ``model.encode(fact).prompts``.

    Returns
    -------
    One row per query and layer: ``fact, relation, query`` (from 0), ``layer, logprob`` (nats), ``rank`` (1: on top).

    Raises
    ------
    MethodError : the model's residual stream cannot be followed, or its answer is no function of one token's state.

    Reference
    ---------
    nostalgebraist 2020, interpreting GPT: the logit lens.
    """
    check_model(model)
    rows = []
    for indices, batch in model.batches(prompts):
        stream = follow(model, batch)
        check_exit(model, stream)
        for layer, after in enumerate(stream.after):
            final = exit_early(model, stream, after.detach())
            answer = model.head.answer(final, batch.answers)
            found = zip(indices, answer.logprob.double().tolist(), answer.rank.tolist(), strict=True)
            rows += [
                {
                    "fact": prompts[i].fact.id,
                    "relation": prompts[i].fact.relation,
                    "query": i,
                    "layer": layer,
                    "logprob": logprob,
                    "rank": rank,
                }
                for i, logprob, rank in found
            ]
    columns = ["fact", "relation", "query", "layer", "logprob", "rank"]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=columns)
    ordered: pd.DataFrame = frame.sort_values(["query", "layer"], ignore_index=True)
    return ordered
