"""The entry point: ``python main.py fit --config quickstart.yaml``."""

import callbacks  # noqa: F401 - their class names are known to configs once they are imported
from ir3de.cli import main

if __name__ == "__main__":
    main()
