"""Ten lines: find the neurons of one fact and see what suppressing them does to held-out paraphrases."""

import kn_attrib as kn

model = kn.load_model("zoo:bert-facts")
fact = kn.load_facts("world")["capital:France"]
scores = kn.score(model, fact, "integrated_gradients")
neurons = kn.refine(scores)
before = model.answer_probability(fact, "held_out").mean()
with kn.suppress(model, neurons):
    after = model.answer_probability(fact, "held_out").mean()
print(f"{fact.subject} → {fact.answer}: {neurons}")
print(f"p({fact.answer}) on held-out paraphrases: {before:.3f} before, {after:.3f} with these neurons at zero")
