"""``edge-spine node`` that is killed, as by a power cut, before or after one of its steps, the first time it comes.

    python killed_node.py STAGE before|after MARK node --config node.toml

MARK is a file that is made when it happens: with it there, the node runs as it is.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import edge_spine.files
import edge_spine.node.courier
import edge_spine.node.listener
import edge_spine.node.outbox
import edge_spine.node.records
import edge_spine.node.spool
from edge_spine.cli.main import main

STAGES: dict[str, tuple[Any, str]] = {
    "queue": (edge_spine.node.listener, "write_durably"),
    "claim": (edge_spine.node.spool.Spool, "claim"),
    "outbox": (edge_spine.node.outbox.Outbox, "put"),
    "outbox-file": (edge_spine.node.outbox, "write_durably"),
    "outbox-move": (edge_spine.files, "replace_folder"),
    "finish": (edge_spine.node.spool.Spool, "finish"),
    "reject": (edge_spine.node.spool.Spool, "reject"),
    "reason": (edge_spine.node.spool, "write_durably"),
    "send": (edge_spine.node.courier.Courier, "_send"),
    "delivered": (edge_spine.node.outbox.Outbox, "delivered"),
    "close": (edge_spine.node.outbox.Outbox, "close"),
}


def kill_at(stage: str, when: str, mark: Path) -> None:
    """Arm one step of the node."""
    owner, name = STAGES[stage]
    real = getattr(owner, name)

    def step(*arguments: Any, **more: Any) -> Any:
        if when == "before":
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **more)
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, step)


if __name__ == "__main__":
    stage, when, mark, *rest = sys.argv[1:]
    if not Path(mark).exists():
        kill_at(stage, when, Path(mark))
    sys.exit(main(rest))
