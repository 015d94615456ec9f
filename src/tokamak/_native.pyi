def probe_read_seconds(threads: int, nbytes: int, repeats: int) -> list[float]:
    """
    Seconds per pass of reading `nbytes` of memory once with `threads` threads.
    """

def probe_int8_rates(isa: str, threads: int, repeats: int) -> list[float]:
    """Int8 multiply-adds per second of `threads` threads, from registers."""

def probe_isas() -> list[str]:
    """Instruction sets with a probe that runs here, weakest first."""
