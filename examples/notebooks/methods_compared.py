# %% [markdown]
# # Methods compared
#
# Does it matter which attribution method is asked? Each method chooses neurons on a fact's prompts. They are set to
# zero on its held-out texts, on other facts, and next to random neurons.

# %%
import tempfile
from pathlib import Path

from transformers.utils import logging

import kn_attrib as kn
from kn_attrib.evaluation import answers

logging.disable_progress_bar()

# %% [markdown]
# A small run, so that it ends soon: six relations, twelve facts, one intervention. `kn.compare(model, "world")` has
# better defaults. With so few facts intervals are wide, and what looks like a difference may be none.

# %%
model = kn.load_model("zoo:bert-facts")
relations = ("capital", "currency", "occupation", "city_country", "company_country", "sport")
facts = kn.load_facts("world").of(*relations).spread(180)  # more than are scored: the others are controls
comparison = kn.compare(
    model,
    facts,
    ["integrated_gradients", "gradient_x_activation", "activation", "random"],
    limit=12,
    max_prompts=3,
    budgets=(10,),
    interventions=("suppress",),
    controls=("random", "random_same_layer"),
    control_facts=3,
    dropout=(),
    progress=False,
)
comparison

# %% [markdown]
# How to read a row:
#
# - `neurons`: how many a method chose, on average. Methods that choose more may do more.
# - `target`: the fact itself. Below zero, the neurons matter for it.
# - `same object`, `same subject`, `same relation`, `other relation`, `plain text`: other texts, the same neurons. What
#   falls like the target shows that the neurons are not the fact's alone.
# - `random`, `random same layer`: other neurons, the same fact. This is what chance does.
#
# The brackets hold 95 % of the bootstrap. Where two rows' brackets overlap, the table does not say which is better.
# The paired comparison of the report does, below.
#
# The sentence under the table is the precondition. If silencing *all* feed-forward neurons at the answer cost next to
# nothing, no choice of neurons could mean anything.

# %%
assert comparison.claim_possible
effect = comparison.cell(intervention="suppress", selection="refined", group="target", neurons="method")
effect = effect.set_index("method")
assert effect.loc["integrated_gradients", "high"] < 0, "suppression lowers p(answer)"
assert effect.loc["integrated_gradients", "mean"] < effect.loc["random", "mean"]

# %% [markdown]
# ## Equal budgets
#
# The same with ten neurons for every method. Here a method cannot win by choosing more.

# %%
budget = comparison.table(selection="k=10")
budget

# %% [markdown]
# ## The answers in words
#
# The report opens with the questions a sceptic asks. They are answered from the rows, with intervals, and say so where
# the facts do not suffice.
#
# The test behind "not told apart" flips the signs of whole relations. With as few relations as here it cannot give a
# small p, whatever was measured: it does not even tell the methods from `random`. A claim needs more relations.

# %%
for each in answers(comparison):
    print(f"{each.question}\n    {each.answer}\n")

# %% [markdown]
# ## Saved and read again
#
# Everything above is made from flat rows, which are saved with a manifest: model, data, settings, versions, seed.

# %%
with tempfile.TemporaryDirectory() as folder:
    saved = comparison.save(Path(folder) / "run")
    report = comparison.report(saved / "report.html")
    print(sorted(file.name for file in saved.iterdir() if file.is_file()))
    assert report.stat().st_size > 0
    assert kn.Comparison.load(saved).rows.equals(comparison.rows)
