"""The routes, one module per group; each has `routes(state)`."""
