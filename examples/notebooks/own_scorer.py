# %% [markdown]
# # A scorer of your own, judged
#
# A method is one class. It is registered under a name and then judged like every other, next to chance and next to a
# cheap method that is known to work.

# %%
from dataclasses import dataclass

from torch import Tensor
from transformers.utils import logging

import kn_attrib as kn

logging.disable_progress_bar()

# %% [markdown]
# ## Write it
#
# A scorer is given a model and a batch of prompts. It returns one number for each prompt, layer and neuron. Larger
# means more responsible for the answer. Its fields are its parameters.
#
# This one asks how much a neuron writes to the residual stream: the size of its activation, times the length of its
# value vector. It never looks at the answer.
#
# A name can be registered once in a session. Restart the kernel to run this cell again.


# %%
@kn.register("loud_neurons")
@dataclass(frozen=True)
class LoudNeurons(kn.Scorer):
    """The size of what the neuron writes: |a|^power · ‖v‖.

    Parameters
    ----------
    power : of the activation; 0 asks for the value vector alone.
    """

    power: float = 1.0

    def score(self, model: kn.NeuronModel, batch: kn.Batch) -> Tensor:
        return model.record(batch).abs() ** self.power * model.value_norms()


assert "loud_neurons" in kn.list_methods()

# %% [markdown]
# ## Try it on one fact
#
# `score` checks the shape and that all numbers are finite. The table shows where the highest scores are.

# %%
model = kn.load_model("zoo:bert-facts")
world = kn.load_facts("world")
scores = kn.score(model, world["capital:France"], "loud_neurons")
scores

# %% [markdown]
# Parameters are given in the method's text. With `power=0` the score no longer depends on the prompt.

# %%
constant = kn.score(model, world["capital:France"], "loud_neurons(power=0)")
assert bool((constant.values == constant.values[:1]).all())
assert not bool((scores.values == scores.values[:1]).all())

# %% [markdown]
# ## Judge it
#
# The same facts, the same number of neurons for every method, the same texts that no method has seen.

# %%
relations = ("capital", "currency", "occupation", "city_country", "company_country", "sport")
facts = world.of(*relations).spread(180)  # more than are scored: the others are controls
comparison = kn.compare(
    model,
    facts,
    ["loud_neurons", "gradient_x_activation", "random"],
    limit=12,
    max_prompts=3,
    budgets=(10,),
    interventions=("suppress",),
    controls=("random", "random_same_layer"),
    control_facts=3,
    dropout=(),
    progress=False,
)
table = comparison.table(selection="k=10")
table

# %% [markdown]
# `target` says what ten neurons of each method cost the fact. `other relation` says what the same neurons cost facts
# that have nothing to do with it. A method that finds what is loud everywhere shows up there.

# %%
effect = comparison.cell(intervention="suppress", selection="k=10", group="target", neurons="method")
effect = effect.set_index("method")[["mean", "low", "high", "n"]]
own, gradient, chance = (effect.loc[name] for name in ("loud_neurons", "gradient_x_activation", "random"))
for name, other in (("random", chance), ("gradient_x_activation", gradient)):
    if own.high < other.low:
        verdict = "stronger than"
    elif own.low > other.high:
        verdict = "weaker than"
    else:
        verdict = "not told from"
    print(f"loud_neurons is {verdict} {name} at ten neurons, on {own.n:.0f} facts")

# %% [markdown]
# Intervals that are apart tell two methods from each other. Intervals that overlap leave it open: more facts may tell.
# The verdict is of this model and of these facts. Facts whose neurons are known are in the notebook `planted_facts`.

# %%
assert gradient.high < chance.low, "the known method beats chance here, so the test could have been passed"
assert own["mean"] <= chance["mean"]
