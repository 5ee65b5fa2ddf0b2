"""``python -m ir3de.gateway``: the gateway alone, without what the other commands load."""

import sys

from ir3de.gateway.start import main

if __name__ == "__main__":
    main(sys.argv[1:])
