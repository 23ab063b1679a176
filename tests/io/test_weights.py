"""Weights of any file into any module: recognised by content, renamed, compared, and poured in whole or not at all."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import striate
from fixtures.torch_files import archive, pickled, tensor
from striate import Tensor, models, nn
from striate.io import npz, safetensors, weights
from striate.io.errors import FileError

FILES = Path(__file__).parents[1] / "fixtures" / "torch_weights"


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def drawn(seed: int = 1) -> dict[str, Tensor]:
    """The state of another network of the same architecture."""
    rng = np.random.default_rng(seed)
    return {
        key: striate.tensor(rng.integers(1, 9, value.shape), dtype=value.dtype)
        for key, value in network().state_dict().items()
    }


def assert_holds(model: nn.Module, state: dict[str, Tensor]) -> None:
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[key].numpy())


def unchanged(model: nn.Module) -> dict[str, Any]:
    return {key: value.numpy().copy() for key, value in model.state_dict().items()}


# Files.


@pytest.mark.parametrize("kind", ["safetensors", "npz", "savez", "compressed", "zip.pt", "stream.pth"])
def test_files_are_recognised_by_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.bin"
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    match kind:
        case "safetensors":
            safetensors.save({"w": striate.tensor(x)}, path)
        case "npz":
            npz.save({"w": striate.tensor(x)}, path)
        case "savez" | "compressed":
            with path.open("wb") as file:
                (np.savez if kind == "savez" else np.savez_compressed)(file, w=x)
        case "zip.pt":
            path.write_bytes(archive(pickled({"w": tensor()})))
        case "stream.pth":
            path.write_bytes((FILES / kind).read_bytes())
    found = weights.load(path)
    if kind == "stream.pth":
        assert found["kernel"].shape == (2, 3, 4, 5)
    else:
        np.testing.assert_array_equal(found["w"].numpy(), x)


def test_checkpoints_are_opened(tmp_path: Path) -> None:
    assert list(weights.load(FILES / "checkpoint.pt")) == list(weights.load(FILES / "checkpoint.pt", entry="model"))
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert weights.load_into(model, FILES / "checkpoint.pt").is_complete
    assert model.state_dict()["1.num_batches_tracked"].item() == 1


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_save_and_load_agree(tmp_path: Path, ending: str) -> None:
    state = drawn()
    weights.save(state, tmp_path / f"a.{ending}")
    found = weights.load(tmp_path / f"a.{ending}")
    assert set(found) == set(state)
    for key, value in state.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key].numpy(), value.numpy())


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "a file with content.*an empty one"),
        (b"x" * 100, "safetensors, an .npz archive or a file of torch.save.*b'xxxx"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "a file that starts with .*HDF"),
        (b"\x80\x02N.", "torch's magic number"),
        (bytes(257) + b"ustar" + bytes(300), "tar format"),
        (b"\x09" + bytes(7) + b'{"a":{1}}', "safetensors: expected a string"),
    ],
)
def test_refusal_of_other_files(tmp_path: Path, content: bytes, match: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FileError, match=match) as caught:
        weights.load(tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)


def test_archive_of_nothing_is_an_empty_npz(tmp_path: Path) -> None:
    weights.save({}, tmp_path / "a.npz")
    assert weights.load(tmp_path / "a.npz") == {}


def test_refusal_of_other_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "file", "w") as written:
        written.writestr("readme.txt", "hello")
    with pytest.raises(FileError, match="an archive of torch.save or numpy.savez .*one that holds 'readme.txt'"):
        weights.load(tmp_path / "file")


def test_refusals_of_arguments(tmp_path: Path) -> None:
    weights.save({"w": striate.ones(1)}, tmp_path / "a.npz")
    with pytest.raises(ValueError, match="no entry for a file that is one set of tensors, got 'model'"):
        weights.load(tmp_path / "a.npz", entry="model")
    with pytest.raises(ValueError, match="entry for a file only, got 'model' with a mapping"):
        weights.load_into(network(), drawn(), entry="model")
    with pytest.raises(ValueError, match="ends with .safetensors or .npz, got '.pt'"):
        weights.save({}, tmp_path / "a.pt")
    with pytest.raises(TypeError, match="Tensors as values, got ndarray for 'w'; make one with striate.tensor"):
        weights.load_into(network(), {"w": np.ones(2)})  # type: ignore[dict-item]
    with pytest.raises(FileNotFoundError):
        weights.load(tmp_path / "missing")


@given(data=st.data(), kind=st.sampled_from(["npz", "safetensors", "torch", "stream"]))
def test_any_bytes_load_or_are_refused(data: st.DataObject, kind: str, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / f"mutant.{kind}"
    if kind in ("npz", "safetensors"):
        weights.save({"w": striate.ones(2, 3), "b": striate.zeros(3, dtype=striate.bool)}, path)
    else:
        path.write_bytes(archive(pickled({"w": tensor()})) if kind == "torch" else (FILES / "stream.pth").read_bytes())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        weights.load(path)
    except FileError as error:
        assert ": expected " in str(error)  # noqa: PT017  # any other error, or a crash, is what is looked for


# Into a model.


def test_equal_keys_are_poured_in() -> None:
    model, state = network(), drawn()
    report = weights.load_into(model, state)
    assert_holds(model, state)
    assert report.is_complete
    assert report.matched == tuple(state)
    assert (report.missing, report.unexpected, report.converted, report.renamed, report.notes) == ((), (), (), (), ())
    assert str(report) == "a mapping into Sequential\nmatched          9"


def test_nothing_changes_unless_everything_fits() -> None:
    model = network()
    before = unchanged(model)
    state = drawn()
    del state["3.bias"]
    with pytest.raises(
        weights.WeightsError, match="expected the keys of Sequential, got 1 missing and 8 matched"
    ) as caught:
        weights.load_into(model, state)
    assert caught.value.report.missing == ("3.bias",)
    for change in ({"3.bias": striate.ones(3)}, {"3.bias": striate.ones(2, dtype=striate.int64)}):
        with pytest.raises(weights.WeightsError, match="expected the shapes and dtypes of Sequential, got 1 mis-"):
            weights.load_into(model, state | change, strict=False)
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])


def test_misfits_are_listed() -> None:
    state = drawn() | {
        "3.weight": striate.ones(2, 5),
        "0.bias": striate.ones(4, dtype=striate.int32),
        "x": striate.ones(1),
    }
    with pytest.raises(weights.WeightsError) as caught:
        weights.load_into(network(), state)
    report = caught.value.report
    assert report.mis_shaped == (weights.Misfit("3.weight", "(2, 5)", "(2, 4)"),)
    assert report.mis_typed == (weights.Misfit("0.bias", "int32", "float32"),)
    assert report.unexpected == ("x",)
    text = str(caught.value)
    assert (
        "got 1 unexpected, 1 mis-shaped, 1 mis-typed and 7 matched; load the weights of the same architecture\n" in text
    )
    assert "3.weight: (2, 5) in the weights, (2, 4) in the model" in text
    assert "0.bias: int32 in the weights, float32 in the model" in text


def test_lenient_loading_skips_keys() -> None:
    model, state = network(), drawn()
    before = unchanged(model)
    state["head.weight"] = state.pop("3.weight")
    report = weights.load_into(model, state, strict=False)
    assert not report.is_complete
    assert (report.missing, report.unexpected) == (("3.weight",), ("head.weight",))
    np.testing.assert_array_equal(model.state_dict()["3.weight"].numpy(), before["3.weight"])
    np.testing.assert_array_equal(model.state_dict()["0.weight"].numpy(), state["0.weight"].numpy())


def test_refusal_where_nothing_fits() -> None:
    with pytest.raises(
        weights.WeightsError, match="keys and shapes of Sequential, got 8 missing, 1 unexpected and 0 matched"
    ):
        weights.load_into(network(), {"x": striate.ones(1)}, strict=False)


def test_wrappers_are_stripped_with_a_note() -> None:
    for wrapper in ("module.", "_orig_mod.", "module._orig_mod."):
        model, state = network(), drawn()
        report = weights.load_into(model, {wrapper + key: value for key, value in state.items()})
        assert_holds(model, state)
        assert len(report.notes) == wrapper.count(".")
        assert "every key starts with" in report.notes[0]
        assert report.renamed[0] == (f"{wrapper}0.weight", "0.weight")


def test_wrappers_that_belong_to_the_model_stay() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            self.module = network()

    model, state = Wrapped(), {f"module.{key}": value for key, value in drawn().items()}
    assert weights.load_into(model, state).notes == ()
    assert_holds(model, state)


def test_prefix_takes_a_part() -> None:
    model, state = network(), drawn()
    given_ = {f"backbone.{key}": value for key, value in state.items()} | {"head.weight": striate.ones(2)}
    report = weights.load_into(model, given_, prefix="backbone.")
    assert_holds(model, state)
    assert report.skipped == ("head.weight",)
    with pytest.raises(weights.WeightsError, match=r"behind 'backbone\.'; pass prefix='backbone\.'"):
        weights.load_into(model, given_)
    with pytest.raises(weights.WeightsError, match="got 8 missing and 0 matched"):
        weights.load_into(model, given_, prefix="neck.")


def test_mapping_renames_keys() -> None:
    model, state = network(), drawn()
    renamed = {key.replace("0.", "conv.").replace("3.", "fc."): value for key, value in state.items()}
    pairs = [(r"^conv\.", "0."), (r"^fc\.", "3.")]
    exact = {"conv.weight": "0.weight", "conv.bias": "0.bias", "fc.weight": "3.weight", "fc.bias": "3.bias"}
    for mapping in (pairs, exact):
        weights.load_into(model, drawn(2))
        report = weights.load_into(model, renamed, mapping=mapping)
        assert_holds(model, state)
        assert report.renamed == tuple(exact.items())
    wrapped = {f"module.net.{key}": value for key, value in renamed.items()}
    assert weights.load_into(model, wrapped, prefix="module.net.", mapping=exact).is_complete


def test_refusals_of_mappings() -> None:
    model, state = network(), drawn()
    with pytest.raises(ValueError, match="expected keys of the weights in mapping, got 'x'"):
        weights.load_into(model, state, mapping={"x": "y"})
    with pytest.raises(ValueError, match="a name of its own, got '0.weight' for two"):
        weights.load_into(model, state, mapping={"0.bias": "0.weight"})
    with pytest.raises(ValueError, match=r"a regular expression and its replacement in mapping, got '\('"):
        weights.load_into(model, state, mapping=[("(", "")])
    with pytest.raises(ValueError, match=r"its replacement in mapping, got '0' and '\\\\3'"):
        weights.load_into(model, state, mapping=[("0", r"\3")])


def test_near_names_are_suggested() -> None:
    state = drawn()
    state["3.wieght"] = state.pop("3.weight")
    with pytest.raises(weights.WeightsError, match=r"3.weight \(the weights have 3.wieght\)") as caught:
        weights.load_into(network(), state)
    assert caught.value.report.suggestions == {"3.weight": "3.wieght"}


def test_long_lists_are_cut_and_stay_quick() -> None:
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(600)])
    state = {f"x{'y' * 150}{key}": value for key, value in model.state_dict().items()} | {"z" * 10**6: striate.ones(2)}
    with pytest.raises(weights.WeightsError) as caught:
        weights.load_into(model, state)
    assert len(str(caught.value)) < 20_000
    assert str(caught.value).count("…") >= 2


def test_counters_of_batches_may_differ() -> None:
    model, state = network(), drawn()
    del state["1.num_batches_tracked"]
    report = weights.load_into(model, state)
    assert report.is_complete
    assert "1 counters num_batches_tracked are not in the weights" in report.notes[0]
    assert model.state_dict()["1.num_batches_tracked"].item() == 0
    report = weights.load_into(model, drawn() | {"0.num_batches_tracked": striate.tensor(1)})
    assert report.is_complete
    assert "1 counters num_batches_tracked are not in the model" in report.notes[0]


def test_dtypes_of_the_same_kind_are_converted() -> None:
    model, state = network(), drawn()
    for dtype in (striate.float64, striate.float16, striate.bfloat16):
        halves = {key: value.to(dtype) if value.dtype.is_floating_point else value for key, value in state.items()}
        halves["1.num_batches_tracked"] = halves["1.num_batches_tracked"].to(striate.int32)
        report = weights.load_into(model, halves)
        assert_holds(model, state)
        assert len(report.converted) == 9
        assert report.converted[0] == weights.Misfit("0.weight", str(dtype), "float32")
        assert f"0.weight: {dtype} to float32" in str(report)


def test_numbers_that_are_not_finite_are_loaded_and_reported() -> None:
    for dtype in (striate.float32, striate.float16, striate.bfloat16, striate.float64):
        model, state = network(), drawn()
        state["0.bias"] = striate.tensor([math.nan, math.inf, -math.inf, 1.0]).to(dtype)
        report = weights.load_into(model, state)
        assert report.non_finite == (("0.bias", 3),)
        assert "not finite       1\n    0.bias: 3 numbers" in str(report)
        assert_holds(model, state | {"0.bias": state["0.bias"].to(striate.float32)})
    state["0.bias"] = striate.tensor(np.array([1e300, 0, 0, 0]))  # infinite once it is float32
    assert weights.load_into(model, state).non_finite == (("0.bias", 1),)


def test_a_model_stays_trainable_and_its_own() -> None:
    model, state = network(), drawn()
    weights.load_into(model, state)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    assert not any(value._array.shares_storage(state[key]._array) for key, value in model.state_dict().items())
    assert not any(value._array.is_exposed for value in model.state_dict().values())


def test_tied_weights_of_a_file_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(archive(pickled({"weight": tensor(), "other": tensor()})))
    model = nn.Linear(3, 2, bias=False)
    report = weights.load_into(model, tmp_path / "file", strict=False)
    assert report.unexpected == ("other",)
    assert model.state_dict()["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_table_of_old_densenet_files() -> None:
    model = models.DenseNet(4, (2, 2), 8, 2, num_classes=3)
    state = dict(model.state_dict())
    old = {}
    for key, value in state.items():
        for part in ("norm", "conv"):
            for i in "12":
                if "denselayer" in key:
                    key = key.replace(f".{part}{i}.", f".{part}.{i}.")
        if not key.endswith("num_batches_tracked"):  # these files are older than the counters
            old[key] = value.clone()
    with pytest.raises(weights.WeightsError, match=r"older names; pass mapping=weights.TABLES\['densenet-dotted'\]"):
        weights.load_into(model, old)
    report = weights.load_into(model, old, mapping=weights.TABLES["densenet-dotted"])
    assert report.is_complete
    assert (
        "features.denseblock1.denselayer1.norm.1.weight",
        "features.denseblock1.denselayer1.norm1.weight",
    ) in report.renamed


@pytest.mark.needs_peers
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v3_small", "squeezenet1_1"])
def test_files_of_torchvisions_networks(tmp_path: Path, name: str) -> None:
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    theirs = getattr(torchvision.models, name)(weights=None)
    torch.save({"epoch": 1, "state_dict": torch.nn.DataParallel(theirs).state_dict()}, tmp_path / "file")
    model = models.build(name)
    assert weights.load_into(model, tmp_path / "file").is_complete
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[key].numpy(), value.numpy())
