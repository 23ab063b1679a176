"""`striate bench`: outputs first, then turns; with peers where they are installed, and with one that is made up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from striate.apps import compare
from striate.apps.model_file import ModelFile, Sizes

Command = Callable[..., Any]


class FakeRuntime(ModuleType):
    """Answers as striate does, times a factor, and notes what it is asked."""

    __version__ = "9.9"

    def __init__(self, factor: float = 1.0, refusal: str = "") -> None:
        super().__init__("onnxruntime")
        self.factor, self.refusal = factor, refusal
        self.asked: list[Any] = []

    def SessionOptions(self) -> Any:
        outer = self

        class Options:
            def add_free_dimension_override_by_name(self, name: str, n: int) -> None:
                outer.asked.append((name, n))

        return Options()

    def InferenceSession(self, path: str, options: Any, providers: list[str]) -> Any:
        outer, model = self, ModelFile(Path(path))
        outer.asked.append((options.intra_op_num_threads, providers))
        if self.refusal:
            raise RuntimeError(self.refusal)

        class Session:
            def run(self, _: None, given: dict[str, Any]) -> list[Any]:
                return [np.asarray(y * outer.factor, y.dtype) for _, y in model(list(given.values()))]

            def io_binding(self) -> Any:
                return self

            def bind_cpu_input(self, name: str, x: Any) -> None:
                outer.asked.append((name, x.shape))

            def bind_output(self, name: str, *_: Any) -> None:
                outer.asked.append(name)

            def run_with_iobinding(self, _: Any) -> None:
                outer.asked.append("call")

        return Session()


@pytest.fixture(autouse=True)
def without_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(compare, "PAUSE_SECONDS", 0)


def test_without_a_peer_it_says_so(command: Command, files: Path) -> None:
    lines = command("bench", files / "fixed.onnx", "--seconds", 0.02, "--threads", 1).stdout.splitlines()
    assert lines[0] == "no peer is installed to compare with; run pip install onnxruntime openvino"
    assert lines[1] == "fixed.onnx, 1×3×12×12, 1 thread"
    assert lines[2].split() == ["library", "ms", "spread", "calls", "striate", "is", "outputs", "differ"]
    assert lines[3].startswith("striate ")


def test_a_peer_gets_the_same_and_its_turns(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = FakeRuntime()
    monkeypatch.setitem(sys.modules, "onnxruntime", peer)
    options = ["--batch", 4, "--threads", 2, "--seconds", 0.02]
    lines = command("bench", files / "fixed.onnx", *options).stdout.splitlines()
    assert lines[0] == "fixed.onnx, 4×3×12×12, 2 threads"
    assert lines[3].startswith("onnxruntime 9.9 ")
    assert "× as fast" in lines[3]
    assert peer.asked[:4] == [("batch", 4), (2, ["CPUExecutionProvider"]), ("image", (4, 3, 12, 12)), "scores"]
    n_untimed = compare.ROUNDS * compare.WAKING + 4
    assert peer.asked.count("call") == n_untimed + int(lines[3].split()[4].replace(",", ""))


def test_outputs_that_differ_are_not_timed(refusal: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = FakeRuntime(factor=1.1)
    monkeypatch.setitem(sys.modules, "onnxruntime", peer)
    message = refusal("bench", files / "fixed.onnx")
    assert (
        "fixed.onnx: expected outputs of striate and onnxruntime 9.9 that differ by at most 0.002 of the largest element, "
        "got 9.1e-02 for 'scores'; nothing was timed"
    ) in message
    assert "call" not in peer.asked


def test_a_peer_that_fails_is_left_out(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeRuntime(refusal="no such\noperator"))
    found = compare.compare(files / "fixed.onnx", seconds=0.01)
    assert found.notes == ["onnxruntime is left out: no such operator"]
    assert len(found.timings) == 1


def test_a_model_that_does_not_compile_is_timed_all_the_same(files: Path) -> None:
    found = compare.compare(files / "short.onnx", Sizes.parsed(["x=4"]), seconds=0.01)
    assert found.notes[0].startswith("striate runs it operator by operator: node 'y' (Cast)")
    assert len(found.timings[0].seconds) >= compare.ROUNDS


def test_distance_is_of_the_largest_element() -> None:
    a = np.float32([1, -4, np.inf, np.nan])
    assert compare._distance(a, a) == 0
    assert compare._distance(np.float32([1.0, 4.1]), np.float32([1, 4])) == pytest.approx(0.025)
    assert compare._distance(np.float32([1e-5]), np.float32([2e-5])) == pytest.approx(1e-5 / compare.LEAST)
    for other in ([1, -4, 2, np.nan], [1, -4, np.inf, 0], [1, -4, np.inf]):
        assert compare._distance(a, np.float32(other)) == np.inf
    assert compare._distance(np.zeros((0, 2)), np.zeros((0, 2))) == 0


def test_bench_refuses(refusal: Command, files: Path) -> None:
    for arguments, message in (
        ((files / "fixed.striate",), "bench: expected an ONNX model, which other libraries read too, got a program in"),
        ((files / "fixed.onnx", "--seconds", 0), "--seconds: expected a time above 0, got 0; pass about how long"),
        ((files / "fixed.onnx", "--batch", 0), "--batch: expected a number of at least 1, got 0"),
        (
            (files / "open.onnx",),
            "expected a size for each open axis of image: float32 batch×3×height×width, got none for "
            "axis 2; pass --size 224 or --shape image=1x32x32x32, say",
        ),
    ):
        assert message in refusal("bench", *arguments)


@pytest.mark.needs_peers
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_installed_peer(files: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delitem(sys.modules, name)
    pytest.importorskip(name)
    for file, sizes in (("fixed.onnx", Sizes(batch=3)), ("open.onnx", Sizes(size=(9, 7)))):
        found = compare.compare(files / file, sizes, seconds=0.05)
        assert [timing.name.split()[0] for timing in found.timings] == ["striate", name]
        assert found.timings[1].error < 1e-5
        assert found.timings[1].median > 0
        assert found.notes == []
