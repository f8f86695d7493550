"""What every experiment keeps and shows.

Here: finished units of work on disk, the record of where numbers come from, the base class of results, numbers and
tables as text, the style of figures, HTML pages. Not here: what one experiment alone prints or draws.
"""
