# %% [markdown]
# # Quickstart: the neurons of one fact
#
# One fact, one method, one intervention. At the end stands what the numbers say, and what they do not.

# %%
import pandas as pd
from transformers.utils import logging

import kn_attrib as kn

logging.disable_progress_bar()  # a saved notebook would keep it

# %% [markdown]
# The model is a small one that ships with the package. It is a *model organism*: its facts were engineered into the
# feed-forward blocks, so that methods have something to find. What is found here is no evidence about natural models.

# %%
model = kn.load_model("zoo:bert-facts")
world = kn.load_facts("world")
world

# %% [markdown]
# A fact is a triple and the texts that express it. `prompts` are used to find neurons. `held out` texts are used to
# judge them, and for nothing else. `[Y]` is where the answer belongs.

# %%
fact = world["capital:France"]
fact

# %% [markdown]
# ## Scores
#
# Integrated gradients give every neuron a score for every prompt: its share in the rise of p(answer) as the
# activations of its layer grow from zero to what they are. The table names the highest means over the prompts. The
# *completeness gap* is what is missing when a layer's scores are added up, next to the difference that they should add
# up to. A small gap says that the integral was computed well. It does not say that the neurons carry the fact.

# %%
scores = kn.score(model, fact, "integrated_gradients")
scores

# %%
assert scores.gap is not None
assert scores.difference is not None
assert scores.gap.abs().max() < 0.05 * scores.difference.abs().max()

# %% [markdown]
# ## Refined neurons
#
# Kept are neurons whose score is at least 0.2 of the prompt's highest in at least 0.7 of the prompts.

# %%
neurons = kn.refine(scores, threshold=0.2, share=0.7)
neurons

# %% [markdown]
# ## What they do
#
# Now these neurons are set to zero while the model answers the held-out texts. Beside them stand equally many random
# neurons, and other facts with the same answer.

# %%
chance = kn.score(model, fact, "random").top_k(len(neurons))
same_answer = world.where(lambda other: other.answer == fact.answer and other.id != fact.id)


def probability(asked: kn.Fact) -> float:
    """Mean p(answer) over the held-out texts."""
    return float(model.answer_probability(asked, "held_out").mean())


def change(asked: kn.Fact, silent: kn.NeuronSet) -> float:
    """Relative change of p(answer) in % with some neurons at zero."""
    before = probability(asked)
    with kn.suppress(model, silent):
        after = probability(asked)
    return 100 * (after / before - 1)


rows = {
    "this fact": change(fact, neurons),
    "this fact, random neurons": change(fact, chance),
    **{other.id: change(other, neurons) for other in same_answer},
}
effects = pd.DataFrame({"change of p(answer) in %": rows}).round(1)
effects

# %%
assert rows["this fact"] < -20, "the neurons matter for the fact"
assert abs(rows["this fact, random neurons"]) < 5, "and not because any neurons would"
assert all(rows[other.id] < -20 for other in same_answer), "but other facts with this answer need them too"

# %% [markdown]
# The first row says that these neurons matter for the fact on texts that did not find them. The second says that this
# is not true of any neurons. The others say that these are not neurons of this *fact* alone: other facts with the same
# answer fall as well. They are largely neurons of the answer word.
#
# One fact proves little. The next notebook, `methods_compared`, does the same for several facts and methods, with
# intervals.
