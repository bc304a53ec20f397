"""Kernels as files of machine code: which are read, what they check, and the memory that they ask for."""

import ast
import ctypes
import threading

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from diffdecode.structure.kernels.numba import backend, native

ROWS = backend.PROJECT_ROWS[torch.float64]
EVERY_ROW = np.empty(0, np.int64)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for the files."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def kept(folder):
    """The file of a kernel in it."""
    native.write(ROWS.name, "Qq", b"machine\ncode")
    (path,) = folder.iterdir()
    return path


@pytest.fixture
def other_origin(monkeypatch):
    """Digests are made anew, before and after the test."""
    native.origin.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    native.origin.cache_clear()


def test_what_is_written_is_read(kept):
    assert native.read(ROWS.name) == ("Qq", b"machine\ncode")
    assert native.read(backend.PROJECT_ROWS[torch.float32].name) is None


@pytest.mark.parametrize("damage", ["emptied", "cut", "bit", "letters", "no JSON", "another kernel's"])
def test_a_damaged_file_is_not_read(kept, damage):
    content = kept.read_bytes()
    damaged = {
        "emptied": b"",
        "cut": content[:-1],
        "bit": content[:-1] + bytes([content[-1] ^ 1]),
        "letters": content.replace(b'"Qq"', b'"QQ"'),
        "no JSON": b"{" + content,
        "another kernel's": content.replace(b"float64", b"float32"),
    }[damage]
    assert damaged != content
    kept.write_bytes(damaged)
    assert native.read(ROWS.name) is None


@pytest.mark.parametrize("what", ["features", "name", "setting", "version"])
def test_code_for_another_processor_or_by_another_compiler_is_not_read(kept, other_origin, what):
    features = native.llvm.get_host_cpu_features()
    if what == "features":
        features[next(iter(features))] ^= True
        other_origin.setattr(native.llvm, "get_host_cpu_features", lambda: features)
    elif what == "name":
        other_origin.setattr(native.llvm, "get_host_cpu_name", lambda: "another")
    elif what == "setting":
        other_origin.setenv("NUMBA_CPU_NAME", "generic")
    else:
        other_origin.setattr(native.importlib.metadata, "version", lambda name: "0.0")
    assert native.read(ROWS.name) is None


def test_settings_that_do_not_change_the_code_are_no_matter(kept, other_origin):
    other_origin.setenv("NUMBA_NUM_THREADS", "7")
    assert native.read(ROWS.name) is not None


def test_nothing_that_kernels_import_is_left_out_of_their_origin():
    sources = native.sources()
    imported = {
        node.module
        for path in sources
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("diffdecode")
    }
    assert len(imported) > 12
    assert imported <= {f"{native.__package__}.{path.stem}" for path in sources} | {
        "diffdecode.structure.kernels.randomness",
        "diffdecode.structure.kernels.status",
    }


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "folder"))
    native.write(ROWS.name, "Q", b"code")
    assert native.read(ROWS.name) is None


def test_a_damaged_file_is_compiled_anew(kept, monkeypatch):
    kept.write_bytes(b"")
    kernel, compiled = again(ROWS), []
    monkeypatch.setattr(native, "linked", lambda name, code: lambda words: compiled.append(code) or 0)
    monkeypatch.setattr(kernel, "compile", lambda: ("", b"new"))
    kernel()
    assert compiled == [b"new"]


def again(kernel):
    """The kernel as if it had not been called."""
    return native.Kernel(f"{kernel.module}.{kernel.function}", kernel.scalar)


def call(kernel, dtype=np.float64, shape=(3, 4), step=1):
    """Project zeros; the projection."""
    rows = np.zeros((shape[0], shape[1] * step), dtype)[:, ::step]
    out = np.full(shape, np.nan, dtype)
    kernel(rows, EVERY_ROW, np.empty((2, shape[1]), dtype), out)
    return out


def test_arguments_that_are_not_as_declared_are_refused():
    np.testing.assert_array_equal(call(ROWS), np.full((3, 4), 0.25))
    for wrong in ({"dtype": np.float32}, {"step": 2}):
        with pytest.raises(TypeError, match=r"projections\.project_rows-float64, argument 0: float"):
            call(ROWS, **wrong)
    with pytest.raises(TypeError, match="argument 1: int64 array of shape"):
        ROWS(np.zeros((3, 4)), EVERY_ROW[None], np.empty((2, 4)), np.empty((3, 4)))


GUARD = 64


class Memory:
    """Memory for kernels that notes what is asked for, and guards the bytes after it."""

    def __init__(self):
        self.blocks, self.overwritten = {}, 0
        self.allocate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(self._allocate)
        self.release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._release)
        self.largest = 0

    def _allocate(self, size):
        memory = np.full(size + 3 * GUARD, 0xAB, np.uint8)
        start = -memory.ctypes.data % GUARD + 8  # so that 8 bytes are left at most when an array is aligned
        self.blocks[memory.ctypes.data + start] = memory, start + size
        self.largest = max(self.largest, len(self.blocks))
        return memory.ctypes.data + start

    def _release(self, address):
        memory, end = self.blocks.pop(address)
        self.overwritten += (memory[end:] != 0xAB).any()


def runs(n, multi_root):
    """Each kernel with the arguments of a full batch, in which some sentences are shorter."""
    generator = np.random.default_rng(n)
    count = 19
    scores = generator.standard_normal((count, n + 1, n + 1))
    lengths = np.array([n] * 16 + [max(1, n - 1)] * 3)
    order, status = np.arange(count), np.empty(count, np.int8)
    heads, product, partition = np.zeros((count, n), np.int64), np.empty_like(scores), np.empty(count)
    for b in range(count):
        heads[b, : lengths[b]] = range(lengths[b])
    few, single = scores.astype(np.float32), (0, count)
    decided = multi_root, 1e30, np.empty((count, n), np.int64), status
    marginals = multi_root, 1e30, np.empty_like(scores), partition, status
    covariance = multi_root, scores.copy(), product, status
    logs = multi_root, scores.copy(), np.empty_like(scores), partition, product, status
    seeds, samples = (
        np.arange(2 * count, dtype=np.uint64).reshape(2, count),
        np.empty((2, count, n), np.int64),
    )
    none = np.empty((0, 0, 0), np.float32)
    yield backend.EISNER[torch.float64], (*single, scores, lengths, order, *decided)
    yield backend.EISNER[torch.float32], (*single, few, lengths, order, *decided)
    yield backend.EISNER_LANES, (0, 2, few, lengths, order, *decided)
    yield backend.ARBORESCENCE, (*single, none, scores, lengths, *decided)
    yield backend.INSIDE_OUTSIDE, (*single, scores, lengths, order, *marginals)
    yield backend.INSIDE_OUTSIDE_LANES, (0, 3, scores, lengths, order, *marginals)
    yield backend.INSIDE_OUTSIDE_COVARIANCE, (*single, scores, lengths, order, *covariance)
    yield backend.COVARIANCE_LANES, (0, 5, scores, lengths, order, *covariance)
    yield backend.INSIDE_OUTSIDE_IN_LOGS, (*single, scores, lengths, order, *logs)
    yield backend.MATRIX_TREE, (*single, scores, lengths, order, *marginals)
    yield backend.MATRIX_TREE_LANES, (0, 3, scores, lengths, order, *marginals)
    yield backend.MATRIX_TREE_COVARIANCE, (*single, scores, lengths, *covariance)
    yield backend.MATRIX_TREE_IN_LOGS, (*single, scores, lengths, order, *logs)
    yield backend.SAMPLE_PROJECTIVE, (*single, scores, lengths, multi_root, seeds, samples)
    yield backend.SAMPLE_ARBORESCENCE, (*single, scores, lengths, multi_root, seeds, samples)
    for projective in (True, False):
        results = np.zeros_like(scores), partition, np.zeros(count, np.int64), status
        inputs = scores, lengths, projective, multi_root, 1e30, heads, 1e-9, 50
        yield backend.PROJECT_TREES, (*single, *inputs, *results)


@pytest.fixture(scope="module")
def guarded():
    """The kernels, linked to guarded memory."""
    memory, entries = Memory(), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(native.CALLED, native.ALLOCATE, memory.allocate)
        patch.setitem(native.CALLED, native.RELEASE, memory.release)
        for name in {kernel.name for kernel, _ in runs(1, True)}:
            letters, code = native.read(name) or native.KERNELS[name].compile()
            entries[name] = native.struct.Struct(letters).pack, native.linked(name, code)
    return memory, entries


@pytest.mark.parametrize("multi_root", [False, True])
def test_kernels_keep_within_their_memory_and_give_it_back(guarded, multi_root):
    memory, entries = guarded
    for n in (1, 2, 5, 12):
        for kernel, arguments in runs(n, multi_root):
            pack, entry = entries[kernel.name]
            memory.largest = 0
            assert entry(pack(*[id(x) if isinstance(x, np.ndarray) else x for x in arguments])) == 0
            assert memory.largest > 0 and not memory.blocks, kernel.name
            assert not memory.overwritten, (kernel.name, n)


def test_no_memory_is_an_error(monkeypatch):
    none = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(lambda size: None)
    monkeypatch.setitem(native.CALLED, native.ALLOCATE, none)
    kernel = again(backend.ARBORESCENCE)
    _, arguments = next(x for x in runs(3, True) if x[0] is backend.ARBORESCENCE)
    with pytest.raises(MemoryError, match=r"edmonds\.arborescence"):
        kernel(*arguments)


def test_threads_that_come_together_load_a_kernel_once(monkeypatch):
    loaded, begun = [], threading.Barrier(4)
    monkeypatch.setattr(native, "linked", lambda name, code: loaded.append(name) or (lambda words: 0))
    kernel = again(ROWS)

    def run():
        begun.wait()
        call(kernel)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [kernel.name]
