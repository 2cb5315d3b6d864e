"""Stored values: what is written whole or in pieces, what is loaded, and that damage is noticed."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.streams import DEDUPE, EVENT, MINUTE_MS, START_MS, Happening, Reference, Values, everything, fold_all, numbers, streams

from tidemill import FeatureView, count, mean
from tidemill.errors import CorruptState
from tidemill.kernel import packed
from tidemill.kernel.packed import Patch
from tidemill.kernel.view import ViewKernel

KERNEL = everything()
NUMBERS = numbers()
HORIZON_MS = 60 * MINUTE_MS


def at(time_ms: int, x: float | None = 1.0, event_id: str | None = None) -> Happening:
    """One event with a plain value."""
    return Happening(time_ms, event_id, Values(x, 1, True))


@given(streams())
def test_state_survives_storing(events: list[Happening]) -> None:
    """What was decoded encodes to the bytes it came from and reads the same."""
    stored = KERNEL.encode(fold_all(KERNEL, events))
    assert KERNEL.encode(KERNEL.decode(stored)) == stored


@given(streams(max_size=60), st.data())
def test_pieces_make_the_whole(events: list[Happening], data: st.DataObject) -> None:
    """What is written after each batch, whole or in pieces, leaves the store with exactly the encoded state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "PATCH_BYTES", 0)
        state, stored = NUMBERS.new_state(), b""
        for event in events:
            NUMBERS.apply(state, event.time_ms, event.id, event.values)
            if data.draw(st.booleans()):
                written = NUMBERS.write(state)
                stored = patched(stored, written) if isinstance(written, Patch) else written
                assert stored == NUMBERS.encode(state)
                if data.draw(st.booleans()):
                    state = NUMBERS.decode(stored)


def patched(stored: bytes, patch: Patch) -> bytes:
    """A stored value after a change in place."""
    assert len(stored) == patch.length
    value = bytearray(stored)
    for offset, piece in patch.pieces:
        value[offset : offset + len(piece)] = piece
    assert len(value) == patch.length
    return bytes(value)


def test_a_long_value_is_changed_in_short_pieces() -> None:
    """With an event in every tile, most writes are a few short pieces, which make the very value; it is laid out anew once in many tiles."""
    kernel = ViewKernel(FeatureView("busy", EVENT, "who", [count(), mean("x")], windows=["1h", "24h", "7d"]))
    state, stored, wholes, patches = kernel.new_state(), b"", 0, list[Patch]()
    for i in range(8 * 24 * 12):
        kernel.apply(state, START_MS + i * 5 * MINUTE_MS, None, Values(1.0, i, True))
        written = kernel.write(state)
        if isinstance(written, Patch):
            patches.append(written)
            stored = patched(stored, written)
        else:
            wholes += 1
            stored = written
        assert stored == kernel.encode(state)
    assert 4 * wholes < len(patches)
    for patch in patches:
        assert len(patch.pieces) <= 4
        assert 3 * len(b"".join(piece for _, piece in patch.pieces)) < patch.length


def test_the_reserve_of_rows() -> None:
    """A length without a free row gets a sixth of its rows more, or of all rows up to eight, and never fewer than one."""
    kernel = ViewKernel(FeatureView("busy", EVENT, "who", [count()], windows=["2h", "3d"], tile="5m", tiles={"3d": "1h"}))
    sizes = [4 + 8 * resolution.layout.width for resolution in kernel.resolutions]
    state, reserves = kernel.new_state(), set[int]()

    def rows() -> tuple[list[int], list[int]]:
        """Of each length: the rows in use, and all rows."""
        used = [kernel.packing.in_use(state.head, r) for r in range(len(sizes))]
        return used, [len(held) // size for held, size in zip(state.rows, sizes, strict=True)]

    for i in range(4 * 24 * 12):
        before, room = rows()
        kernel.apply(state, START_MS + i * 5 * MINUTE_MS, None, Values(1.0, i, True))
        after, room_after = rows()
        for r in range(len(sizes)):
            if room_after[r] != room[r] or after[r] < before[r]:
                n = after[r] - 1
                together = sum(after[:r]) + n + sum(before[r + 1 :])
                assert room_after[r] == n + max(n // 6, min(8, together // 6), 1)
                reserves.add(room_after[r] - n)
    assert {1, 2, 8} <= reserves
    assert max(reserves) > 8


def test_a_loaded_value_is_changed_in_pieces_too() -> None:
    """The first write after loading a long value is a patch of the stored bytes; a short value is written whole."""
    kernel = ViewKernel(FeatureView("busy", EVENT, "who", [count(), mean("x")], windows=["24h"]))
    for hours in (1, 24):
        events = [at(START_MS + i * 5 * MINUTE_MS) for i in range(hours * 12)]
        stored = kernel.encode(fold_all(kernel, events))
        for load in (kernel.decode, kernel.reopen):
            state = fold_all(kernel, events[-1:], load(stored))
            written = kernel.write(state)
            assert isinstance(written, Patch) == (len(stored) >= packed.PATCH_BYTES) == (hours == 24)
            assert (patched(stored, written) if isinstance(written, Patch) else written) == kernel.encode(state) != stored


@given(streams())
def test_recent_ids_are_told_in_order(events: list[Happening]) -> None:
    """As hexadecimal, the oldest first: what the ids of the accepted events are, as many as the view keeps."""
    reference = Reference(HORIZON_MS)
    for event in events:
        reference.offer(event)
    state = fold_all(KERNEL, events)
    names = {fold_all(KERNEL, [at(START_MS, event_id=event_id)]).recent_ids[0]: event_id for event_id in "abcdef"}
    assert [names[told] for told in state.recent_ids] == reference.ids[-DEDUPE:]


def test_every_flipped_byte_is_noticed() -> None:
    """A stored value with any one byte changed is refused by reading and by loading."""
    stored = KERNEL.encode(fold_all(KERNEL, [at(START_MS + i * 61_000, float(i), str(i)) for i in range(3)]))
    for i in range(len(stored)):
        broken = bytearray(stored)
        broken[i] ^= 1 + i % 255
        refused(bytes(broken))


def test_every_truncation_is_noticed() -> None:
    """A stored value that lacks its end, or has something after it, is refused."""
    stored = KERNEL.encode(fold_all(KERNEL, [at(START_MS, event_id="a")]))
    for length in range(len(stored)):
        refused(stored[:length])
    refused(stored + b"\0")
    refused(stored + stored)


def sealed(head: bytes, rows: bytes = b"") -> bytes:
    """A value with the checksum that its bytes have."""
    return zlib.crc32(head, zlib.crc32(rows)).to_bytes(4, "little") + head + rows


def test_a_value_of_another_form_is_refused() -> None:
    """Also with a right checksum: another format, more bytes than the head counts, more rows in use than rows in all."""
    stored = NUMBERS.encode(fold_all(NUMBERS, [at(START_MS)]))
    head = stored[4:]
    assert sealed(head) == stored
    for wrong in (sealed(head[:8] + bytes([packed.FORMAT + 1]) + head[9:]), sealed(head, b"\0"), sealed(head[:10] + b"\1\0" + head[12:])):
        with pytest.raises(CorruptState, match=r"'tested'.* wrong length or format"):
            NUMBERS.decode(wrong)
        with pytest.raises(CorruptState, match=r"'tested'.* wrong length or format"):
            NUMBERS.read(wrong, START_MS)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    """Bytes that were never a state are refused, not misread."""
    refused(noise)


def refused(value: bytes) -> None:
    """Asserts that neither reading nor loading accepts a value, and that the message names the view."""
    with pytest.raises(CorruptState, match="tested"):
        KERNEL.decode(value)
    with pytest.raises(CorruptState, match="tested"):
        KERNEL.read(value, START_MS)
