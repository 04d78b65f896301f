"""``python -m lit_rl``."""

import sys

if __name__ == "__main__":
    from lit_rl.cli import main

    sys.exit(main())
