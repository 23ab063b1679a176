"""ncnn, forward only, with Winograd, in its packed layout as inside a network; a batch is a call for each image."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

Array = np.ndarray[Any, Any]
MAGIC = 7767517
FLOAT32 = bytes(4)  # what marks plain weights in a file
PACKS = (16, 8, 4, 1)


class Peer:
    """What run.py measures, by ncnn."""

    def __init__(self, library: str, n_threads: int) -> None:
        self.version = f"ncnn {ncnn.__version__}"
        self.n_threads = n_threads
        self.run: Callable[[], Any] = lambda: None
        n = max(PACKS)
        probe = self._net(f"Convolution c 1 1 x y 0={n} 1=1 6={n * n}", FLOAT32 + bytes(4 * n * n))
        channels = np.zeros((n, 1, 1), np.float32)  # a Mat borrows the array's memory
        self.widest = self._call(probe, ncnn.Mat(channels)).elempack

    def _empty_net(self) -> Any:
        net = ncnn.Net()
        net.opt.num_threads = self.n_threads
        net.opt.use_winograd_convolution = net.opt.use_packing_layout = True
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_packed = net.opt.use_bf16_storage = False
        return net

    def _net(self, layer: str, weights: bytes) -> Any:
        net = self._empty_net()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "weights.bin"
            file.write_bytes(weights)
            if net.load_param_mem(f"{MAGIC}\n2 2\nInput i 0 1 x\n{layer}\n") or net.load_model(str(file)):
                raise SystemExit(f"peer_ncnn: expected a net of {layer!r}, got none; see its message above")
        return net

    @staticmethod
    def _call(net: Any, x: Any) -> Any:
        extractor = net.create_extractor()
        extractor.input("x", x)
        return extractor.extract("y", 1)[1]  # 1: as the layer has it, still packed

    def conv(self, pass_: str, layer: dict[str, Any], x: Array, weight: Array, grad_y: Array) -> list[Array] | None:
        """Set `run` and return its result."""
        if pass_ != "forward":
            return None
        numbers = [weight.shape[0], *(layer[key] for key in ("kernel_size", "dilation", "stride", "padding"))]
        kind, group = ("Convolution", "") if layer["groups"] == 1 else ("ConvolutionDepthWise", f"7={layer['groups']}")
        text = " ".join(f"{i}={n}" for i, n in enumerate(numbers))
        net = self._net(f"{kind} c 1 1 x y {text} 5=0 6={weight.size} {group}", FLOAT32 + weight.tobytes())
        pack = next(p for p in PACKS if p <= self.widest and x.shape[1] % p == 0)
        images = [ncnn.convert_packing(ncnn.Mat(image), pack) for image in x]

        def run() -> list[Any]:
            return [self._call(net, image) for image in images]

        self.run = run
        self.kept = x
        return [np.stack([np.array(ncnn.convert_packing(y, 1)) for y in run()])]

    def network(self, row: dict[str, Any], x: Array, folder: Path) -> list[Array]:
        """Set `run` and return its results."""
        import pnnx

        size = ",".join(map(str, (1, *x.shape[1:])))
        subprocess.run(
            [pnnx.EXEC_PATH, "network.pt", f"inputshape=[{size}]", "fp16=0"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        net = self._empty_net()
        if net.load_param(str(folder / "network.ncnn.param")) or net.load_model(str(folder / "network.ncnn.bin")):
            raise ValueError("the converted network cannot be loaded")
        names = net.output_names()
        images = [ncnn.Mat(image) for image in x]

        def run() -> list[list[Any]]:
            found = []
            for image in images:
                extractor = net.create_extractor()
                extractor.input("in0", image)
                found.append([extractor.extract(name)[1] for name in names])
            return found

        self.run = run
        self.kept = x
        return [np.stack([np.array(y) for y in ys]) for ys in zip(*run(), strict=True)]
