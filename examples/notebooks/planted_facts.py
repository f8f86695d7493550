# %% [markdown]
# # Planted facts: where the right answer is known
#
# On a trained model nobody knows which neurons carry a fact. A *plant* is a fact written into chosen neurons,
# everything else frozen. There a method can be told right from wrong.

# %%
from dataclasses import replace

import pandas as pd
from transformers.utils import logging

import kn_attrib as kn
from kn_attrib.evaluation import benchmark, plant

logging.disable_progress_bar()

# %% [markdown]
# ## Plant one
#
# The fact is counterfactual: France gets the capital of another country. Two neurons of two layers are to carry it.
# Other facts are given that shall stay as they are.

# %%
model = kn.load_model("zoo:bert-facts")
world = kn.load_facts("world")
fact = replace(world["capital:France"], id="capital:France, planted", answer="Cairo")
others = world.where(lambda other: other.subject != "France").spread(60)
chosen = kn.NeuronSet([(2, 17), (3, 100)])
planted = plant(model, fact, chosen, others)

# %% [markdown]
# A plant counts only if it is what it says. The probabilities are means over texts: of the answer before and with the
# plant, and what share of it is left with the planted neurons silent. `others` is the accuracy on other facts.

# %%
check = planted.targets[0].check
assert check is not None
assert check.passed
measured = pd.Series(
    {
        "p(answer) before": check.before,
        "p(answer) with the plant": check.held_out,
        "share left, planted neurons silent": check.left,
        "accuracy on others before": check.others_before,
        "accuracy on others with the plant": check.others,
    },
    name="held-out texts",
)
measured.round(4).to_frame()

# %% [markdown]
# ## Ask methods where it is
#
# Each is asked for its two highest neurons. `found` is how many of them are planted ones. The model is what it was
# again as soon as the block ends.

# %%
asked = ["contrastive_joint_ig", "integrated_gradients", "activation", "random"]
contrast = world.of("capital")[:8]  # for methods that compare facts with one another
with planted.applied(model):
    tops = {name: kn.score(model, fact, name, contrast=contrast).top_k(len(chosen)) for name in asked}
found = pd.DataFrame({"found": {name: len(top & chosen) for name, top in tops.items()}, "neurons": tops})
found

# %%
assert found.found["contrastive_joint_ig"] == len(chosen)
assert found.found["random"] == 0
assert float(model.answer_probability(fact, "held_out").mean()) < 0.01, "nothing of the plant is left in the model"

# %% [markdown]
# ## The benchmark
#
# The package ships verified plants of many kinds ("axes"), from one neuron to decoys, backups and neurons that do
# something else too. Here runs a small part: one model, one plant of each axis, two prompts of each fact, of the split
# that methods may be developed on. `kn-attrib benchmark` runs all.
#
# The table holds average precision: 1 if the planted neurons are the highest of all, near 0 if they are anywhere.

# %%
result = benchmark(
    ["zoo:bert-facts"],
    ["contrastive_joint_ig", "gradient_x_activation", "activation", "random"],
    split="development",
    limit=1,
    max_prompts=2,
    progress=False,
)
table = result.table_text()
table.T

# %% [markdown]
# One plant is no evidence about its axis, and the interval of a single number has no width. The row `overall` has an
# interval over all plants. Whether the best method is better than another one is a paired question: the same plants,
# the difference of the two.

# %%
pairs = result.pairwise()
pairs

# %%
means = result.table()["overall"]
assert means["contrastive_joint_ig"] > means["gradient_x_activation"] > means["random"]
assert (pairs["low"] > 0).all(), "the best is better than each of the others on the same plants"

# %% [markdown]
# What this says: which methods find neurons that together carry an answer, where these are known. What it does not
# say: that facts which training wrote are kept in the same way. Planted neurons favour methods that compare the fact
# with others of its relation, since most of them do on the fact what they do on no other.
