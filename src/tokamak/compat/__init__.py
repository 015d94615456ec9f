"""The interfaces of other libraries over tokamak's own: `tokamak.hf`, `tokamak.tiktoken`."""
