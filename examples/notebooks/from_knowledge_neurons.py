# %% [markdown]
# # From EleutherAI's package to kn_attrib
#
# `knowledge-neurons` (version 0.0.2) is the package of EleutherAI for the neurons of Dai et al. 2022. Here stand its
# calls beside those of kn_attrib, on the same model and the same prompts, with the numbers of both.
#
# | knowledge-neurons | kn_attrib |
# |---|---|
# | `KnowledgeNeurons(model, tokenizer, model_type="bert")` | `kn.load_model((model, tokenizer))` |
# | `get_scores(prompt, answer, batch_size, steps)` | `kn.score(model, fact, "integrated_gradients:eleuther")` |
# | `get_refined_neurons(prompts, answer, p, coarse_adaptive_threshold)` | `kn.refine(scores, preset="eleuther")` |
# | `suppress_knowledge(prompt, answer, neurons)` | `with kn.suppress(model, neurons): model.answer_probability(fact)` |
#
# The package is optional. Without it the cells that need it say so.

# %%
import importlib
import importlib.util
from dataclasses import replace

import pandas as pd
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging

import kn_attrib as kn
from kn_attrib.models.shipped import zoo_path

logging.disable_progress_bar()
installed = importlib.util.find_spec("knowledge_neurons") is not None
MISSING = "skipped: knowledge-neurons is not installed (pip install knowledge-neurons==0.0.2)"
print("knowledge-neurons is installed" if installed else MISSING)

# %% [markdown]
# ## The model
#
# Both packages take a Hugging Face model and its tokenizer. Both read and change the same object.

# %%
model = AutoModelForMaskedLM.from_pretrained(zoo_path("bert-facts"), dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(zoo_path("bert-facts"))
ours = kn.load_model((model, tokenizer))
theirs = None
if installed:
    peer = importlib.import_module("knowledge_neurons")
    theirs = peer.KnowledgeNeurons(model, tokenizer, model_type="bert", device="cpu")

# %% [markdown]
# ## The prompts
#
# They take a text with `[MASK]` and the answer beside it. We take a fact with `[Y]` in its texts, for any kind of
# model.

# %%
fact = kn.load_facts("world")["capital:France"]
fact = replace(fact, prompts=fact.prompts[:3])
texts = [text.replace("[Y]", tokenizer.mask_token) for text in fact.prompts]
texts

# %% [markdown]
# ## Scores
#
# The preset `eleuther` has their integral: twenty steps from zero to the activation, both ends among them, each
# weighing the same. The table gives the distance of the two score tensors as a share of theirs.

# %%
scores = kn.score(ours, fact, "integrated_gradients:eleuther")
if theirs is None:
    print(MISSING)
else:
    rows = []
    for text, own in zip(texts, scores.values, strict=True):
        other = theirs.get_scores(text, fact.answer, batch_size=20, steps=20, pbar=False).detach()
        rows.append({"prompt": text, "relative distance": float((own - other).norm() / other.norm())})
    distances = pd.DataFrame(rows)
    assert (distances["relative distance"] < 1e-4).all()
    print(distances.to_string(index=False))

# %% [markdown]
# ## Neurons
#
# Their refinement: more than 0.3 of the prompt's highest score, in more than half of the prompts.

# %%
neurons = kn.refine(scores, preset="eleuther")
assert len(neurons) > 0
if theirs is None:
    print(MISSING)
else:
    refined = theirs.get_refined_neurons(texts, fact.answer, p=0.5, coarse_adaptive_threshold=0.3, quiet=True)
    assert kn.NeuronSet(tuple(pair) for pair in refined) == neurons
    print("theirs:", sorted(refined))
neurons

# %% [markdown]
# ## Suppression
#
# The same neurons at zero, p(answer) on the same prompts.

# %%
before = ours.answer_probability(fact)
with kn.suppress(ours, neurons):
    after = ours.answer_probability(fact)
effects = pd.DataFrame({"before, ours": before.tolist(), "after, ours": after.tolist()}, index=texts)
if theirs is None:
    print(MISSING)
else:
    for text in texts:
        found, _ = theirs.suppress_knowledge(text, fact.answer, [list(n) for n in neurons], quiet=True)
        effects.loc[text, "before, theirs"] = found["before"]["gt_prob"]
        effects.loc[text, "after, theirs"] = found["after"]["gt_prob"]
    for when in ("before", "after"):
        assert (effects[f"{when}, ours"] - effects[f"{when}, theirs"]).abs().max() < 1e-5
assert (effects["after, ours"] < effects["before, ours"]).all()
effects.round(4)

# %% [markdown]
# ## What is different
#
# The preset reproduces their numbers. It is not the best integral: its rule weighs both ends like every other point.
# The default of `integrated_gradients` chooses its steps by an estimate of the error, and says how far the scores are
# from adding up. `largest gap` is the largest of any prompt and layer.

# %%
default = kn.score(ours, fact, "integrated_gradients")
assert scores.gap is not None
assert default.gap is not None
gaps = pd.Series({"eleuther": float(scores.gap.abs().max()), "default": float(default.gap.abs().max())})
assert gaps["default"] < gaps["eleuther"]
gaps.to_frame("largest gap")

# %% [markdown]
# And the numbers above are all measured on the prompts that found the neurons. They cannot say whether the neurons are
# of the fact. For that there are held-out texts, other facts and random neurons: see the notebook `methods_compared`.
