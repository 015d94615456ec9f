"""Static graphs: data (`graph`), vocabulary (`ops`), rules (`check`), rewrites (`passes`), memory (`planner`)."""
