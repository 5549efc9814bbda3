"""Tables, pictures and pages of results; `explorer` is the interactive page.

Nothing is imported here: `simulator.evaluation` draws with some of these modules, and others build on it.
"""
