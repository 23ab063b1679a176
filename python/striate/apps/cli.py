"""The command `striate`: checks that its extra is installed, then hands over to the commands."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Run the command line; a missing package gives one line and exit code 2."""
    missing = [
        name
        for name, module in (("typer", "typer"), ("rich", "rich"), ("pillow", "PIL"), ("matplotlib", "matplotlib"))
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        sys.stderr.write(
            f"striate: expected the packages of the extra 'app', got no {', '.join(missing)}; "
            "run pip install 'striate[app]'\n"
        )
        raise SystemExit(2)
    from striate.apps.commands import app

    app(prog_name="striate")


if __name__ == "__main__":
    main()
