"""The program: ``trivium``, and ``python -m trivium.cli`` for launchers such as ``torchrun``."""

from __future__ import annotations

import sys

from trivium.errors import TriviumError, check_system


def main() -> None:
    """Run the command line, where the system can."""
    try:
        check_system()
        from trivium.cli import app
    except TriviumError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; nothing was begun", file=sys.stderr)
        sys.exit(130)
    app.main()


if __name__ == "__main__":
    main()
