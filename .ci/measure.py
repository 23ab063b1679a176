"""Run a command; print its seconds and the memory of its largest process; fail beyond the limits given.

Usage: python .ci/measure.py [--most-seconds S] [--most-mb MB] -- COMMAND...
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most-seconds", type=float, default=float("inf"))
    parser.add_argument("--most-mb", type=float, default=float("inf"))
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    start = time.monotonic()
    code = subprocess.run(options.command, check=False).returncode
    seconds = time.monotonic() - start
    # ru_maxrss of the children is the largest one of them and their descendants, in KiB on Linux.
    mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{' '.join(options.command)}: {seconds:.0f} s, largest process {mb:.0f} MB", flush=True)
    if code == 0 and (seconds > options.most_seconds or mb > options.most_mb):
        print(f"expected at most {options.most_seconds:.0f} s and {options.most_mb:.0f} MB")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
