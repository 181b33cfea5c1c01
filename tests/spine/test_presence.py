"""Bundles of which not every target is here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from manifests import A, B, make_manifest, make_target, put_placeholders

from sdxl_trt.bundle import Blob, BlobStore, Chunk, Host, Target, choose_target, mapped, not_pulled
from sdxl_trt.errors import NotPulled

HOST = Host(processor="x86_64", flavours={"tensorrt-rtx": "1", "onnxruntime": "1.31.1"}, sm=86)


def plan(name: str, *chunks: str) -> Target:
    """A target of one plan in chunks of 3 bytes."""
    parts = tuple(Chunk(sha256=letter * 64, bytes=3) for letter in chunks)
    file = Blob(sha256=name * 64, bytes=3 * len(parts), chunks=parts)
    target = make_target(name, flavour="tensorrt-rtx", flavour_version="1", sms=(86,))
    entry = dataclasses.replace(target.engines["vae_decoder"], file=file, weights=())
    return dataclasses.replace(target, engines={"vae_decoder": entry})


ONE, TWO, CPU = plan("1", "e", "f", "0"), plan("2", "e", "f", "9"), make_target("cpu")
ALL = make_manifest(ONE, TWO, CPU)


def words(bundle: Path) -> dict[str, str]:
    return {name: str(absence) for name, absence in not_pulled(ALL, bundle).items()}


def test_all_is_here(tmp_path: Path) -> None:
    put_placeholders(tmp_path, ONE, TWO, CPU)
    assert words(tmp_path) == {}


def test_nothing_is_here(tmp_path: Path) -> None:
    assert words(tmp_path) == {
        "1": "not pulled: 3 of its 3 files are not here (9 bytes)",
        "2": "not pulled: 3 of its 3 files are not here (9 bytes)",
        "cpu": "not pulled: 2 of its 2 files are not here (6 bytes)",
    }


def test_what_two_targets_share_makes_neither_whole(tmp_path: Path) -> None:
    put_placeholders(tmp_path, ONE)
    assert words(tmp_path)["2"] == "not pulled: 1 of its 3 files are not here (3 bytes)"
    assert set(words(tmp_path)) == {"2", "cpu"}
    assert choose_target(ALL, HOST, tmp_path) is ONE


def test_a_target_that_lost_a_file_is_damaged_and_no_other_is_taken_for_it(tmp_path: Path) -> None:
    put_placeholders(tmp_path, ONE, CPU)
    (BlobStore(tmp_path).folder / ("0" * 64)).unlink()
    assert "1" not in words(tmp_path)
    assert choose_target(ALL, HOST, tmp_path) is ONE


def test_a_whole_file_stands_for_its_chunks(tmp_path: Path) -> None:
    put_placeholders(tmp_path, ONE)
    store = BlobStore(tmp_path)
    for chunk in ONE.engines["vae_decoder"].file.chunks:
        store.path(chunk).unlink()
    store.path(ONE.engines["vae_decoder"].file).write_bytes(bytes(9))
    assert set(words(tmp_path)) == {"2", "cpu"}
    assert words(tmp_path)["2"].startswith("not pulled: 3 of its 3")


def test_a_host_is_told_how_to_pull(tmp_path: Path) -> None:
    with pytest.raises(NotPulled, match="for this host was not pulled") as caught:
        choose_target(make_manifest(ONE), HOST, tmp_path)
    assert caught.value.got == "1: not pulled: 3 of its 3 files are not here (9 bytes)"
    assert caught.value.expected == "the files of 1"
    assert caught.value.fix.startswith(f"sdxl-trt ship pull REF -o {tmp_path}")


def test_what_is_mapped() -> None:
    assert set(mapped(ALL)) == set(mapped(ALL, CPU)) == {A.sha256, B.sha256}
    assert set(mapped(ALL, ONE)) == {A.sha256}
