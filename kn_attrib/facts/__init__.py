"""Facts and the prompts made from them.

Here: a triple with its paraphrases, reading facts from files, texts as token ids with the answer's position and gold
ids, batches of them. Not here: anything that runs a model.
"""
