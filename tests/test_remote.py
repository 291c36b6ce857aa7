"""Data files by URL: copied once, again when they change, and every failure told in a sentence."""

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
from tiny import train, write_experiment

from multigrid.data.inspect import inspect_path
from multigrid.data.remote import local
from multigrid.errors import UserError

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("MULTIGRID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def put(system, name: str, **arrays: np.ndarray) -> None:
    with system.open(name, "wb") as file:
        np.savez(file, **arrays)


def test_names_without_a_scheme_are_paths() -> None:
    assert local("data/f.h5") == Path("data/f.h5")


def test_a_file_is_copied_once_and_again_when_it_changes(memory, monkeypatch) -> None:
    put(memory, "/sets/f.npz", x=np.zeros(3))
    path = local("memory://sets/f.npz")
    assert path.name == "f.npz"
    before = path.stat().st_mtime_ns
    assert local("memory://sets/f.npz").stat().st_mtime_ns == before
    put(memory, "/sets/f.npz", x=np.ones(4))
    assert np.load(local("memory://sets/f.npz"))["x"].tolist() == [1] * 4


def test_folders_and_patterns(memory) -> None:
    for split in ("train", "valid", "test"):
        for part in range(2):
            put(memory, f"/well/data/{split}/{part}.npz", x=np.full(2, part))
    for name in ("memory://well", "memory://well/data/train/*.npz"):
        folder = local(name)
        names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.npz"))
        expected = [f"data/{s}/{k}.npz" for s in ("test", "train", "valid") for k in range(2)]
        assert names == (expected if name.endswith("well") else ["0.npz", "1.npz"])
    with pytest.raises(UserError, match="no file has such a name"):
        local("memory://well/*.h5")


def test_a_run_trains_on_a_url_and_inspect_writes_it(memory, tmp_path: Path) -> None:
    put(memory, "/f.npz", x=RNG.random((40, 16, 16)), y=RNG.random((40, 16, 16)))
    report = inspect_path("memory://f.npz")
    assert report["suggestion"]["problem"]["file"] == "memory://f.npz"
    experiment = write_experiment(
        tmp_path / "e.yaml",
        problem={"kind": "file", "file": "memory://f.npz"},
        data={"train": 28, "validation": 8, "test": 4},
    )
    assert train(experiment, tmp_path, "schedule.epochs=1")["test"]["rel_l2"] > 0


def test_what_cannot_be_copied_is_told(memory, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"memory://gone.npz: cannot be copied here"):
        local("memory://gone.npz")
    with pytest.raises(UserError, match="cannot be copied here: Protocol not known"):
        local("nowhere://f.npz")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"s3://.*; pip install 'multigrid-surrogates\[remote\]'"):
        local("s3://bucket/f.npz")


def test_a_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "served").mkdir()
    np.save(tmp_path / "served" / "f.npy", np.arange(6))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        path = local(f"{place}/f.npy?download=1")
        assert path.name == "f.npy"
        assert np.load(path).tolist() == list(range(6))
        with pytest.raises(UserError, match="cannot be copied here"):
            local(f"{place}/gone.npy")
        server.shutdown()
