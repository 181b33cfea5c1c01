"""`ship sign`, `verify` and `explain`, and what the other commands say of bundles on a host with keys."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from manifests import make_manifest, make_target
from signed_bundles import Keys, make_keys, sign_bundle, write_bundle, write_pair

from sdxl_trt.bundle import MANIFEST_NAME, BlobStore, Target, read_manifest, write_manifest
from sdxl_trt.cli.doctor.text import page
from sdxl_trt.cli.ship import explain
from sdxl_trt.cli.ship.sign import PASSWORD_VARIABLE
from sdxl_trt.gpus import find_gpu
from sdxl_trt.paths import bundles_folder
from sdxl_trt.trust import KEY_VARIABLE, SIGNATURE_NAME, hosts, read_public_keys

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(autouse=True)
def host_without_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(hosts, "SYSTEM_KEYS", tmp_path / "etc" / "trusted.pem")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", chunked=True)
    return tmp_path / "bundle"


def fingerprint(public: Path) -> str:
    return read_public_keys(public)[0].fingerprint


def test_sign_and_verify(sdxl_trt: Command, keys: Keys, bundle: Path) -> None:
    signed = sdxl_trt("ship", "sign", bundle, "--key", keys.private)
    assert (signed.status, signed.err) == (0, "")
    assert f"signed with {fingerprint(keys.public)} ({keys.private})" in signed.out
    verified = sdxl_trt("ship", "verify", bundle, "--key", keys.public, "--json").json
    assert verified["key"] == {"fingerprint": fingerprint(keys.public), "source": str(keys.public)}
    assert verified["not_pulled"] == []
    blobs = read_manifest(bundle).blobs().values()
    assert (verified["files"], verified["bytes"]) == (len(blobs), sum(blob.bytes for blob in blobs))
    assert "every hash right" in sdxl_trt("ship", "verify", bundle, "--key", keys.public).out


def test_verify_is_strict_about_whose_key_was_asked_for(
    sdxl_trt: Command, keys: Keys, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_bundle(bundle, keys.private)
    monkeypatch.setenv(KEY_VARIABLE, str(keys.public))
    assert sdxl_trt("ship", "verify", bundle).status == 0
    assert sdxl_trt("ship", "verify", bundle, "--key", keys.other_public, "--key", keys.public).status == 0
    other = sdxl_trt("ship", "verify", bundle, "--key", keys.other_public)
    assert (other.status, "is not trusted" in other.err) == (1, True)
    monkeypatch.delenv(KEY_VARIABLE)
    assert sdxl_trt("ship", "verify", bundle).status == 2


def test_verify_reads_every_file(sdxl_trt: Command, keys: Keys, bundle: Path) -> None:
    sign_bundle(bundle, keys.private)
    step = read_manifest(bundle).targets[0].engines["step"].file
    path = BlobStore(bundle).path(step.chunks[-1])
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    refused = sdxl_trt("ship", "verify", bundle, "--key", keys.public, "--json")
    assert (refused.status, refused.json["error"]) == (1, "BundleError")
    assert "content with SHA-256" in refused.json["got"]
    assert sdxl_trt("ship", "sign", bundle, "--key", keys.private).status == 1, "what is damaged gets no signature"


def two_targets(bundle: Path) -> None:
    """Give the second target an engine of its own."""
    manifest = read_manifest(bundle)
    first, second = manifest.targets
    with BlobStore(bundle).lock():
        own = BlobStore(bundle).put_bytes(b"a plan of its own")
    engines = {**second.engines, "step": dataclasses.replace(second.engines["step"], file=own)}
    write_manifest(bundle, dataclasses.replace(manifest, targets=(first, dataclasses.replace(second, engines=engines))))


def test_a_bundle_that_was_pulled_for_one_target(sdxl_trt: Command, keys: Keys, bundle: Path) -> None:
    two_targets(bundle)
    sign_bundle(bundle, keys.private)
    store, manifest = BlobStore(bundle), read_manifest(bundle)
    store.path(manifest.targets[1].engines["step"].file).unlink()
    verified = sdxl_trt("ship", "verify", bundle, "--key", keys.public)
    assert verified.status == 0
    assert "second: not pulled" in verified.out
    assert sdxl_trt("ship", "verify", bundle, "--key", keys.public, "--json").json["not_pulled"] == ["second"]
    refused = sdxl_trt("ship", "sign", bundle, "--key", keys.private)
    assert (refused.status, "without the files of second" in refused.err) == (1, True)
    rows = sdxl_trt("ship", "explain", bundle, "--json").json["targets"]
    assert rows[0]["not_pulled"] is None
    assert "not pulled: 1 of its" in rows[1]["not_pulled"]
    shutil.rmtree(bundle / "blobs")
    assert "no target whose files are here" in sdxl_trt("ship", "verify", bundle, "--key", keys.public).err


def test_passwords(sdxl_trt: Command, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = write_pair(tmp_path / "locked", password="open sesame")
    refused = sdxl_trt("ship", "sign", bundle, "--key", private)
    assert (refused.status, "SDXL_TRT_KEY_PASSWORD" in refused.err) == (2, True)
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    assert "another password" in sdxl_trt("ship", "sign", bundle, "--key", private).err
    assert not (bundle / SIGNATURE_NAME).exists()
    monkeypatch.setenv(PASSWORD_VARIABLE, "open sesame")
    assert sdxl_trt("ship", "sign", bundle, "--key", private).status == 0
    assert sdxl_trt("ship", "verify", bundle, "--key", public).status == 0


def test_keys_that_cannot_be_used(sdxl_trt: Command, keys: Keys, bundle: Path, tmp_path: Path) -> None:
    open_key = tmp_path / "open.pem"
    shutil.copy(keys.private, open_key)
    open_key.chmod(0o644)
    for command, key, says in (
        ("sign", open_key, "chmod 600"),
        ("sign", keys.public, "-rw-r--r--"),
        ("sign", tmp_path / "none.pem", "No such file"),
        ("verify", keys.private, "a private key"),
    ):
        refused = sdxl_trt("ship", command, bundle, "--key", key)
        assert (refused.status, says in refused.err) == (2, True), refused.err
    assert not (bundle / SIGNATURE_NAME).exists()


def test_a_new_manifest_drops_the_signature(keys: Keys, bundle: Path) -> None:
    """It would be one of another bundle."""
    sign_bundle(bundle, keys.private)
    write_manifest(bundle, dataclasses.replace(read_manifest(bundle), tool="0.0.1"))
    assert not (bundle / SIGNATURE_NAME).exists()


def test_inspect_and_run_on_a_host_with_keys(sdxl_trt: Command, keys: Keys, bundle: Path) -> None:
    assert "unsigned" in sdxl_trt("inspect", bundle).out
    for arguments in (["inspect", bundle], ["run", "a cat", "--bundle", bundle, "-o", "out.png"]):
        refused = sdxl_trt(*arguments, "--key", keys.public)
        assert (refused.status, "is not signed" in refused.err) == (1, True)
    sign_bundle(bundle, keys.private)
    assert f"signed with {fingerprint(keys.public)}" in sdxl_trt("inspect", bundle, "--key", keys.public).out
    assert sdxl_trt("inspect", bundle, "--json").json["signed_with"] == fingerprint(keys.public)
    assert sdxl_trt("inspect", bundle, "--key", keys.other_public).status == 1
    ran = sdxl_trt("run", "a cat", "--bundle", bundle, "-o", "out.png", "--key", keys.public)
    assert "nothing in" in ran.err, "it was admitted, and has no engine for the processor"
    assert os.environ.get(KEY_VARIABLE, "") == "", "--key is for one command"


def test_doctor_says_whom_it_trusts(sdxl_trt: Command, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("signed", "unsigned"):
        write_bundle(bundles_folder() / name)
    sign_bundle(bundles_folder() / "signed", keys.private)
    report = sdxl_trt("doctor", "--json").json
    found = {Path(row["path"]).name: row for row in report["bundles"]}
    assert found["signed"]["signed_with"] == fingerprint(keys.public)
    assert found["unsigned"]["signed_with"] is None
    text = page(report)
    assert "trust: no public key is configured" in text
    assert "small, unsigned" in text
    assert f"small, signed with {fingerprint(keys.public)}" in text

    monkeypatch.setenv(KEY_VARIABLE, str(keys.public))
    report = sdxl_trt("doctor", "--json").json
    assert report["keys"]["trusted"] == [{"fingerprint": fingerprint(keys.public), "source": str(keys.public)}]
    found = {Path(row["path"]).name: row for row in report["bundles"]}
    assert found["signed"]["error"] is None
    assert found["unsigned"]["error"]["error"] == "NotTrusted"
    assert found["unsigned"]["error"] in report["problems"]
    assert fingerprint(keys.public) in page(report)

    monkeypatch.setenv(KEY_VARIABLE, "misspelt.pub")
    report = sdxl_trt("doctor", "--json").json
    assert report["keys"]["error"]["error"] == "KeyFileError"
    assert report["problems"].count(report["keys"]["error"]) == 1
    assert "trust: the key file misspelt.pub cannot be used" in page(report)


def test_explain(sdxl_trt: Command, keys: Keys, tmp_path: Path) -> None:
    targets = (
        make_target("cpu"),
        make_target("rtx", flavour="tensorrt-rtx", flavour_version="1.7.1.116", sms=(86, 89), accepted=False),
        make_target("jetson", flavour="tensorrt", flavour_version="10.13", sms=(87,), processor="aarch64"),
    )
    write_manifest(tmp_path / "bundle", make_manifest(*targets))
    found = sdxl_trt("ship", "explain", tmp_path / "bundle", "--json").json
    cpu, rtx, jetson = found["targets"]
    assert (cpu["gpus"], cpu["extra"], cpu["later_versions"]) == ([], "cpu", True)
    assert {"rtx3060", "rtx4090", "l40s"} <= set(rtx["gpus"])
    assert {find_gpu(name).sm for name in rtx["gpus"]} == {86, 89}
    assert jetson["gpus"]
    assert all(find_gpu(name).form == "soc" for name in jetson["gpus"])
    assert (rtx["smallest"], rtx["largest"], rtx["pictures"], rtx["accepted"]) == ([64, 64], [192, 192], 2, False)
    assert "which cannot run here" in rtx["refused"]["cpu"]
    assert "built for a aarch64 processor" in jetson["refused"]["cpu"]
    assert (found["signed_with"], found["untrusted"]) == (None, None)
    text = sdxl_trt("ship", "explain", tmp_path / "bundle").out
    for line in (
        "rtx: built: never run yet",
        "  runs on      SM 86, SM 89: ",
        "  needs        x86_64, tensorrt-rtx 1.7.1.116, this very version (pip install 'sdxl-trt[tensorrt-rtx]')",
        "  needs        x86_64, onnxruntime 1.31.1 or later (pip install 'sdxl-trt[cpu]')",
        "  makes        64x64 to 192x192, up to 2 pictures at once, float32",
        "  cpu          no: ",
    ):
        assert line in text
    refused = sdxl_trt("ship", "explain", tmp_path / "bundle", "--key", keys.public)
    assert refused.status == 0
    assert "this host refuses it" in refused.out
    assert "signed" not in refused.out.splitlines()[2:3]


@pytest.mark.parametrize(
    ("target", "gpu", "serves"),
    [
        (make_target("cpu"), "rtx4090", False),
        (make_target("a", flavour="onnxruntime-cuda"), "rtx4090", True),
        (make_target("a", flavour="tensorrt-rtx", sms=(89,)), "rtx4090", True),
        (make_target("a", flavour="tensorrt-rtx", sms=(86,)), "rtx4090", False),
        (make_target("a", flavour="tensorrt-rtx"), "h100", False),
        (make_target("a", flavour="tensorrt"), "h100", True),
    ],
)
def test_which_gpus_a_target_serves(target: Target, gpu: str, serves: bool) -> None:
    found = find_gpu(gpu)
    assert explain.serves(target, found) == serves


def test_bundles_of_older_schemas_are_explained_and_signed(sdxl_trt: Command, keys: Keys, bundle: Path) -> None:
    path = bundle / MANIFEST_NAME
    text = path.read_text().replace('"schema": 4', '"schema": 3')
    path.write_text(text)
    assert sdxl_trt("ship", "sign", bundle, "--key", keys.private).status == 0
    assert sdxl_trt("ship", "verify", bundle, "--key", keys.public).status == 0
    assert sdxl_trt("ship", "explain", bundle, "--json").json["schema"] == 3
    path.write_text(text.replace('"schema": 3', '"schema": 5'))
    refused = sdxl_trt("ship", "explain", bundle)
    assert "unknown schema version" in refused.err
    assert "use the sdxl-trt version that wrote it" in refused.err
