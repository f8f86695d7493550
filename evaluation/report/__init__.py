"""What is read off a comparison's rows: tables, answers in words, leaderboard, figures, the page.

Here: `Comparison` and all that is made from it, from the rows alone. Nothing here runs a model.
"""
