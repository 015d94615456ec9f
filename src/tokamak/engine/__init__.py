"""The engine: requests, cache blocks, the step, and `LLM`, which wires a model file to all of it.

Nothing is imported here, so that the names of the package stay cheap; see `tokamak.__init__`.
"""
