"""``python -m lit_rl``."""

import sys

from lit_rl.commands.early import checked
from lit_rl.errors import UsageError


def main() -> int:
    """Runs the command line; returns the exit code."""
    try:
        sys.argv[1:] = checked(sys.argv[1:])
    except UsageError as error:
        print(f"lit_rl: {error}", file=sys.stderr)
        return 2
    from lit_rl.commands.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
