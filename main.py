"""The entry point: ``python main.py fit --config quickstart.yaml``."""

import sys


def run() -> None:
    """Run the command line; `route` and `serve` without the parts that take seconds to load."""
    if sys.argv[1:2] == ["route"]:
        from ir3de.route_command import main as route  # noqa: PLC0415

        route(sys.argv[2:])
    elif sys.argv[1:2] == ["serve"]:
        from ir3de.gateway.start import main as serve  # noqa: PLC0415

        serve(sys.argv[2:])
    else:
        import callbacks  # noqa: F401, PLC0415 - their class names are known to configs once they are imported
        from ir3de.cli import main  # noqa: PLC0415

        main()


if __name__ == "__main__":
    run()
