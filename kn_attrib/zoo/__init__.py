"""How the shipped models are made: the corpus and tokenizer, recipes, training, and what is measured of them."""
