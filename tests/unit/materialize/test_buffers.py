"""The pool of buffers: reuse only what nobody can see."""

import threading

import numpy as np
import pyarrow as pa
import pytest

from latewood.materialize.buffers import BufferPool

BIG = 100_000


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_a_dropped_buffer_is_used_again() -> None:
    pool = BufferPool()
    first = pool.empty(BIG, np.int64)
    where = address(first)
    del first
    assert address(pool.empty(BIG, np.int64)) == where
    assert address(pool.empty(BIG * 2, np.int32)) == where  # by size, whatever the dtype


def test_buffers_are_aligned_writable_and_as_long_as_asked() -> None:
    buffer = BufferPool().empty(BIG, np.int64)
    assert address(buffer) % 64 == 0
    assert buffer.shape == (BIG,)
    assert buffer.flags.writeable


@pytest.mark.parametrize(
    "hold",
    [
        lambda a: a[5:10],
        lambda a: a[5:10][1:].view(np.uint8),
        lambda a: a.reshape(-1, 10).T,
        lambda a: pa.array(a[:100]),
        lambda a: pa.array(a).slice(3, 4),
        lambda a: memoryview(a),
        lambda a: a.__dlpack__(),
        lambda a: np.from_dlpack(a),
        lambda a: np.frombuffer(a, np.uint8),
        lambda a: np.lib.stride_tricks.sliding_window_view(a, 3),
    ],
    ids=["view", "view of view", "reshaped", "arrow", "slice", "memoryview", "capsule", "dlpack", "buffer", "strides"],
)  # fmt: skip
def test_a_buffer_that_anyone_can_see_is_not_used_again(hold) -> None:
    pool = BufferPool()
    first = pool.empty(BIG, np.int64)
    where = address(first)
    held = hold(first)
    del first
    assert address(pool.empty(BIG, np.int64)) != where
    del held
    addresses = {address(pool.empty(BIG, np.int64)) for _ in range(2)}
    assert len(addresses) == 1  # one of the two, now idle


def test_a_tensor_holds_its_buffer() -> None:
    torch = pytest.importorskip("torch")
    pool = BufferPool()
    first = pool.empty(BIG, np.int64)
    where = address(first)
    tensor = torch.from_numpy(first)[3:].clone() * 0 + torch.from_numpy(first)[3:]
    view = torch.from_numpy(first)[3:].view(-1, 1)
    del first
    assert address(pool.empty(BIG, np.int64)) != where
    del view, tensor


def test_a_large_idle_block_does_not_serve_small_requests() -> None:
    pool = BufferPool()
    where = address(pool.empty(BIG * 100, np.int8))
    assert address(pool.empty(BIG, np.int8)) != where


def test_idle_memory_is_bounded() -> None:
    pool = BufferPool(limit_bytes=1 << 20)
    for size in range(1, 10):
        pool.empty(size << 20, np.int8)
    assert pool.size_bytes < 30 << 20
    held = [pool.empty(1 << 20, np.int8) for _ in range(5)]
    assert pool.size_bytes >= 5 << 20
    assert len({address(buffer) for buffer in held}) == 5


def test_a_pool_that_was_refused_memory_goes_on() -> None:
    pool = BufferPool(limit_bytes=0)
    held = pool.empty(4 * BIG, np.int8)
    pool.empty(BIG, np.int8)  # idle, and let go when more is asked for
    with pytest.raises(MemoryError):
        pool.empty(1 << 62, np.int8)
    buffers = [pool.empty(BIG * size, np.int8) for size in (2, 1, 1, 3, 4)]
    assert [len(buffer) for buffer in buffers] == [2 * BIG, BIG, BIG, 3 * BIG, 4 * BIG]
    assert len({address(buffer) for buffer in [held, *buffers]}) == 6


def test_threads_never_share_a_buffer() -> None:
    pool, wrong = BufferPool(), []

    def work(number: int) -> None:
        for _ in range(200):
            mine = pool.empty(BIG, np.int8)
            mine[:] = number
            if not (mine == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
