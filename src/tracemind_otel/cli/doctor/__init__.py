"""`tracemind-otel doctor`: what `configure()` does here and why, and what stands in the way of it.

`examination` gathers the evidence; a check is a function from the evidence to findings; `report` prints both.
"""
