"""Every error tokamak raises on purpose, as one tree.

    TokamakError
    |-- FileRefused            a file is broken or is not what it claims; carries path and place
    |   |-- ModelFileError
    |   `-- TokenizerFileError
    |-- UnsupportedError       well-formed, but asks for something not implemented here
    |-- UnavailableError       hardware, dependency or network that this machine lacks
    |-- InvalidParams          an argument outside its documented range (also a ValueError)
    |-- ContextOverflow        prompt and completion do not fit the context (also a ValueError)
    |-- CapacityError          memory or cache blocks exhausted
    |-- HubError               a repository or download failed
    |-- Cancelled              the caller stopped the work
    |-- CheckFailed            a verification, comparison or gate found a difference
    `-- GraphError             a graph breaks its own rules: a defect in a model file or a pass

A message says what, where (file, key, tensor, value) and what to do. Lower layers raise with the facts
they have; upper layers add the file with `located`.
"""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "CapacityError",
    "CheckFailed",
    "ContextOverflow",
    "FileRefused",
    "GraphError",
    "HubError",
    "InvalidParams",
    "ModelFileError",
    "TokamakError",
    "TokenizerFileError",
    "UnavailableError",
    "UnsupportedError",
]


class TokamakError(Exception):
    """Base of every error raised on purpose. `exit_code` is what the command line returns for it."""

    exit_code = 1

    def located(self, where: str) -> TokamakError:
        """The same error with `where` (usually a file) in front of its message, unless it is there already."""
        if where in str(self):
            return self
        return type(self)(f"{where}: {self}")


class FileRefused(TokamakError):
    """A file is broken or is not what it claims to be."""

    exit_code = 3


class ModelFileError(FileRefused):
    """A model file is malformed; the message names the key or tensor and the byte offset."""


class TokenizerFileError(FileRefused):
    """A tokenizer file is malformed, incomplete or contradicts the model."""


class UnsupportedError(TokamakError):
    """The input is well-formed but asks for something tokamak does not implement."""

    exit_code = 3


class UnavailableError(TokamakError):
    """This machine lacks the hardware, dependency or network that was asked for."""

    exit_code = 4


class InvalidParams(TokamakError, ValueError):
    """An argument is outside its documented range."""

    exit_code = 2


class ContextOverflow(TokamakError, ValueError):
    """Prompt and completion together do not fit the context; the message has both counts, as the fields do where known."""

    num_prompt: int | None = None
    context: int | None = None

    def counted(self, num_prompt: int, context: int) -> ContextOverflow:
        """Itself, with tokens of the prompt and of the context."""
        self.num_prompt, self.context = num_prompt, context
        return self


class CapacityError(TokamakError):
    """Memory or cache blocks are exhausted."""


class HubError(TokamakError):
    """A repository could not be read or a download failed."""

    exit_code = 4


class Cancelled(TokamakError):
    """The caller stopped the work."""

    exit_code = 130


class CheckFailed(TokamakError):
    """A verification, comparison or regression gate found a difference."""

    exit_code = 5


class GraphError(TokamakError):
    """A graph breaks the rules of `ir.check`; a defect in a model file or a pass, never in user input."""
