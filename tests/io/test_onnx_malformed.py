"""No malformed file crashes, hangs or eats memory; each refusal says what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).parent))
import malformed_onnx

FILES = {bad.name: bad for bad in malformed_onnx.all_files()}


def test_there_are_enough() -> None:
    assert len(FILES) == len(malformed_onnx.all_files()) >= 200


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
@pytest.mark.parametrize("name", FILES)
def test_refusal(name: str) -> None:
    bad = FILES[name]
    text = malformed_onnx.attempt(bad)
    if bad.text:
        assert re.search(bad.text, text), text or "it ran"
    else:
        assert text == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux says about a process")
def test_time_and_memory() -> None:
    """In a process of its own, whose memory nothing else has grown."""
    done = subprocess.run(
        [sys.executable, str(Path(malformed_onnx.__file__))], capture_output=True, text=True, check=True, timeout=300
    )
    last = done.stdout.splitlines()[-1]
    slowest, grown = re.search(r"took ([\d.]+) s .* grew by at most (\d+) MB", last).groups()  # type: ignore[union-attr]
    assert float(slowest) < 5
    assert int(grown) < 500
