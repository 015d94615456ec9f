"""Low-bit language models on the machine you have."""
