"""What the server writes to stderr: one JSON object a line, facts about requests but never their texts."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone


class JsonLines(logging.Formatter):
    """time, level, logger, message, and the `facts` of a record beside them."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def start(level: str, *, requests: bool) -> None:
    """Everything of tokamak's at or above a level, and requests if they are asked for."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    root = logging.getLogger("tokamak")
    root.handlers, root.propagate = [handler], False
    root.setLevel(level.upper())
    logging.getLogger("tokamak.access").setLevel(logging.INFO if requests else logging.WARNING)
