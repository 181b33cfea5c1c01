"""Bundles to a real registry and from it; what others read of what we pushed."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from shipped import AVERAGE, EXACT, PORTABLE, PROCESSOR, content, contents, host, make_bundle

from benchmarks.oci_registry import Running, get, registry
from sdxl_trt.bundle import BlobStore, Host, read_manifest, write_manifest
from sdxl_trt.bundle.checked import CheckedBlob
from sdxl_trt.errors import BundleError, NoTargetForHost, OutputError, TransferError, Unreachable
from sdxl_trt.ship import oci
from sdxl_trt.ship.choosing import choose_for, choose_for_gpu
from sdxl_trt.ship.pull import Pulled, is_current, pull
from sdxl_trt.ship.push import Pushed, push
from sdxl_trt.ship.references import parse_reference
from sdxl_trt.ship.remote import open_remote

SECRET = "$2b$04$YhhJCF1ctnfHbtM.LDrahOgI36cqsIP27g38tvH0chNBGuijk4LmW"
"""The word "secret", as registries keep passwords (bcrypt)."""


def send(bundle: Path, reference: str) -> Pushed:
    with open_remote(parse_reference(reference), write=True) as remote:
        return push(bundle, remote)


def fetch(reference: str, folder: Path, *hosts: Host, **how: bool) -> Pulled:
    wanted = parse_reference(reference)
    with open_remote(wanted, write=False) as remote:
        return pull(wanted, remote, folder, choose_for(hosts or [host(89)], fix="-"), **how)


def check(folder: Path, target: str) -> None:
    """Every file of a target is here, as its reader wants it, and right."""
    manifest, store = read_manifest(folder), BlobStore(folder)
    chosen = next(each for each in manifest.targets if each.name == target)
    for blob in manifest.files.values():
        store.verify(blob, "a file")
    for engine in chosen.engines.values():
        with CheckedBlob(store, engine.file, "an engine") as file:
            data = b""
            while part := file.read(2**20):
                data += part
        assert hashlib.sha256(data).hexdigest() == engine.file.sha256
        for weights in engine.weights:
            store.verify(weights, "weights")


def test_there_and_back(real: Running, tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path / "home/built")
    pushed = send(tmp_path / "home/built", real.oci("team/sdxl:1"))
    assert pushed.targets == (EXACT, PORTABLE, PROCESSOR)
    assert pushed.present == 0
    pulled = fetch(real.oci("team/sdxl:1"), tmp_path / "pulled")
    assert pulled.choice.target.name == EXACT
    assert pulled.digest == pushed.digest
    assert pulled.received.fetched > 20
    assert (pulled.received.present_bytes, pulled.received.shared_bytes) == (0, 0)
    check(tmp_path / "pulled", EXACT)
    assert (tmp_path / "pulled" / "bundle.json").read_bytes() == (tmp_path / "home/built" / "bundle.json").read_bytes()
    # Nothing of the other targets came along.
    needed = manifest.blobs(manifest.targets[0]).values()
    names = {path.name for path in (tmp_path / "pulled" / "blobs" / "sha256").iterdir()}
    assert names <= {part.sha256 for blob in needed for part in (blob, *blob.parts)}


@pytest.mark.parametrize(("sm", "target"), [(89, EXACT), (86, PORTABLE), (None, PROCESSOR)])
def test_each_host_gets_its_own(real: Running, tmp_path: Path, sm: int | None, target: str) -> None:
    make_bundle(tmp_path / "home/built")
    send(tmp_path / "home/built", real.oci("team/each:1"))
    pulled = fetch(real.oci("team/each:1"), tmp_path / "pulled", host(sm))
    assert pulled.choice.target.name == target
    assert set(pulled.choice.others) == {EXACT, PORTABLE, PROCESSOR} - {target}
    check(tmp_path / "pulled", target)


def test_a_second_push_sends_nothing_and_a_second_pull_fetches_nothing(real: Running, tmp_path: Path) -> None:
    make_bundle(tmp_path / "home/built", seed="twice")
    first = send(tmp_path / "home/built", real.oci("team/twice:1"))
    before = real.blobs()
    second = send(tmp_path / "home/built", real.oci("team/twice:1"))
    assert (second.sent, second.sent_bytes, second.present) == (0, 0, first.sent)
    assert real.blobs() == before
    fetch(real.oci("team/twice:1"), tmp_path / "pulled")
    received = fetch(real.oci("team/twice:1"), tmp_path / "pulled").received
    assert (received.fetched, received.fetched_bytes, received.damaged) == (0, 0, 0)


def test_another_profile_sends_what_differs(real: Running, tmp_path: Path) -> None:
    size = 1_500_000
    make_bundle(tmp_path / "home/built", size=size, seed="profile")
    send(tmp_path / "home/built", real.oci("team/profile:1"))
    make_bundle(tmp_path / "again", size=size, seed="profile", plan=content("changed", 1000))
    pushed = send(tmp_path / "again", real.oci("team/profile:2"))
    whole = pushed.sent_bytes + pushed.present_bytes
    print(f"sent {pushed.sent_bytes / whole:.2%} of {whole:,} bytes; required: at most 5 %")
    assert pushed.sent_bytes <= 0.05 * whole


def test_what_other_bundles_have_is_shared(real: Running, tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path / "home/built", seed="shared")
    send(tmp_path / "home/built", real.oci("team/shared:1"))
    places = tmp_path / "bundles"
    fetch(real.oci("team/shared:1"), places / "one", host(86))
    received = fetch(real.oci("team/shared:1"), places / "two", host(89)).received
    table = manifest.files["text_encoder/token_embedding.npy"].sha256
    assert (places / "one/blobs/sha256" / table).samefile(places / "two/blobs/sha256" / table)
    assert received.fetched_bytes < AVERAGE * 8 < received.shared_bytes
    check(places / "two", EXACT)


def test_two_targets_in_one_folder(real: Running, tmp_path: Path) -> None:
    make_bundle(tmp_path / "home/built")
    send(tmp_path / "home/built", real.oci("team/both:1"))
    fetch(real.oci("team/both:1"), tmp_path / "pulled", host(89))
    fetch(real.oci("team/both:1"), tmp_path / "pulled", host(None))
    for target in (EXACT, PROCESSOR):
        check(tmp_path / "pulled", target)


def test_a_pulled_bundle_can_be_pushed_on(real: Running, tmp_path: Path) -> None:
    make_bundle(tmp_path / "home/built")
    send(tmp_path / "home/built", real.oci("team/on:1"))
    fetch(real.oci("team/on:1"), tmp_path / "pulled", host(86))
    pushed = send(tmp_path / "pulled", real.oci("team/further:1"))
    assert (pushed.targets, set(pushed.absent)) == ((PORTABLE,), {EXACT, PROCESSOR})
    fetch(real.oci("team/further:1"), tmp_path / "again", host(89))
    check(tmp_path / "again", PORTABLE)
    with pytest.raises(NoTargetForHost, match="runs on this host"):
        fetch(real.oci("team/further:1"), tmp_path / "none", host(None))


def test_a_new_bundle_under_the_same_tag(real: Running, tmp_path: Path) -> None:
    make_bundle(tmp_path / "one", seed="one")
    make_bundle(tmp_path / "two", seed="two", created="2026-02-02T03:04:05+00:00")
    first = send(tmp_path / "one", real.oci("team/new:1"))
    fetch(real.oci("team/new:1"), tmp_path / "pulled")
    send(tmp_path / "two", real.oci("team/new:1"))
    fetch(real.oci("team/new:1"), tmp_path / "pulled")
    check(tmp_path / "pulled", EXACT)
    wanted = {part.sha256 for blob in read_manifest(tmp_path / "two").blobs().values() for part in (blob, *blob.parts)}
    assert {path.name for path in (tmp_path / "pulled/blobs/sha256").iterdir()} <= wanted
    # The digest still means the first one.
    fetch(real.oci(f"team/new@{first.digest}"), tmp_path / "first")
    assert read_manifest(tmp_path / "first") == read_manifest(tmp_path / "one")


def test_what_is_damaged_here_is_fetched_again(real: Running, tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path / "home/built")
    send(tmp_path / "home/built", real.oci("team/damaged:1"))
    fetch(real.oci("team/damaged:1"), tmp_path / "pulled")
    chunk = manifest.targets[0].engines["vae_decoder"].file.chunks[3]
    path = tmp_path / "pulled/blobs/sha256" / chunk.sha256
    path.write_bytes(bytes(chunk.bytes))
    received = fetch(real.oci("team/damaged:1"), tmp_path / "pulled").received
    assert (received.damaged, received.fetched, received.fetched_bytes) == (1, 1, chunk.bytes)
    check(tmp_path / "pulled", EXACT)


def test_a_damaged_bundle_is_not_sent(real: Running, tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path / "home/built", seed="rotten")
    chunk = manifest.targets[0].engines["vae_decoder"].file.chunks[3]
    (tmp_path / "home/built/blobs/sha256" / chunk.sha256).write_bytes(bytes(chunk.bytes))
    with pytest.raises(BundleError, match="damaged or was altered"):
        send(tmp_path / "home/built", real.oci("team/rotten:1"))
    with pytest.raises(TransferError, match="there is no"):
        fetch(real.oci("team/rotten:1"), tmp_path / "pulled")
    assert chunk.sha256 not in real.blobs()


def test_a_registry_that_rots(tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path / "home/built")
    with registry(tmp_path / "registry") as own:
        send(tmp_path / "home/built", own.oci("team/sdxl:1"))
        chunk = manifest.targets[0].engines["vae_decoder"].file.chunks[5]
        own.blob(chunk.sha256).write_bytes(bytes(chunk.bytes))
        with pytest.raises(TransferError, match="something else than was asked for"):
            fetch(own.oci("team/sdxl:1"), tmp_path / "pulled")
        assert not (tmp_path / "pulled/bundle.json").exists()
        assert not (tmp_path / "pulled/blobs/sha256" / chunk.sha256).exists()
        own.blob(chunk.sha256).unlink()
        with pytest.raises(TransferError, match="404"):
            fetch(own.oci("team/sdxl:1"), tmp_path / "pulled")
        # A push mends it.
        assert send(tmp_path / "home/built", own.oci("team/sdxl:1")).sent == 1
        fetch(own.oci("team/sdxl:1"), tmp_path / "pulled")
    check(tmp_path / "pulled", EXACT)


def test_bundles_that_were_built_here_are_not_overwritten(real: Running, tmp_path: Path) -> None:
    make_bundle(tmp_path / "home/built")
    send(tmp_path / "home/built", real.oci("team/own:1"))
    before = contents(tmp_path / "home/built")
    with pytest.raises(OutputError, match="built here"):
        fetch(real.oci("team/own:1"), tmp_path / "home/built")
    assert contents(tmp_path / "home/built") == before


def test_what_is_current(real: Running, tmp_path: Path) -> None:
    make_bundle(tmp_path / "home/built", seed="current")
    send(tmp_path / "home/built", real.oci("team/current:1"))
    reference, choose = parse_reference(real.oci("team/current:1")), choose_for([host(89)], fix="-")

    def current() -> bool:
        with open_remote(reference, write=False) as remote:
            return is_current(remote, tmp_path / "pulled", choose)

    assert not current()
    fetch(real.oci("team/current:1"), tmp_path / "pulled", host(None))
    assert not current()
    fetch(real.oci("team/current:1"), tmp_path / "pulled")
    assert current()
    make_bundle(tmp_path / "newer", seed="newer")
    send(tmp_path / "newer", real.oci("team/current:1"))
    assert not current()


def test_older_bundles_without_chunks(real: Running, tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path / "home/built")
    store = BlobStore(tmp_path / "home/built")
    targets = []
    for target in manifest.targets:
        engine = target.engines["vae_decoder"]
        blobs = [dataclasses.replace(blob, chunks=()) for blob in (engine.file, *engine.weights)]
        for blob in (engine.file, *engine.weights):
            store.join(blob, "an engine")
        engine = dataclasses.replace(engine, file=blobs[0], weights=tuple(blobs[1:]))
        targets.append(dataclasses.replace(target, engines={"vae_decoder": engine}))
    files = {name: dataclasses.replace(blob, chunks=()) for name, blob in manifest.files.items()}
    write_manifest(tmp_path / "home/built", dataclasses.replace(manifest, targets=tuple(targets), files=files))
    send(tmp_path / "home/built", real.oci("team/older:1"))
    fetch(real.oci("team/older:1"), tmp_path / "pulled")
    check(tmp_path / "pulled", EXACT)


def test_nobody_else_may_write_what_was_pulled(real: Running, tmp_path: Path) -> None:
    make_bundle(tmp_path / "home/built")
    send(tmp_path / "home/built", real.oci("team/modes:1"))
    before = os.umask(0o002)
    try:
        fetch(real.oci("team/modes:1"), tmp_path / "pulled")
    finally:
        os.umask(before)
    pulled = tmp_path / "pulled"
    for path in (
        pulled,
        *pulled.glob("blobs"),
        *pulled.glob("blobs/*"),
        *pulled.glob("blobs/*/*"),
        *pulled.glob("b*n"),
    ):
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH), path


@pytest.mark.parametrize("name", ["rtx4090", "rtx3060", "cpu"])
def test_another_host_s_gpu(real: Running, tmp_path: Path, name: str) -> None:
    make_bundle(tmp_path / "home/built")
    send(tmp_path / "home/built", real.oci("team/gpu:1"))
    reference = parse_reference(real.oci("team/gpu:1"))
    with open_remote(reference, write=False) as remote:
        pulled = pull(reference, remote, tmp_path / "pulled", choose_for_gpu(name))
    assert pulled.choice.target.name == {"rtx4090": EXACT, "rtx3060": PORTABLE, "cpu": PROCESSOR}[name]


def test_documents_are_what_the_specification_says(real: Running, tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path / "home/built")
    pushed = send(tmp_path / "home/built", real.oci("team/spec:1"))
    index = json.loads(get(f"http://{real.host}/v2/team/spec/manifests/{pushed.digest}"))
    assert (index["schemaVersion"], index["mediaType"], index["artifactType"]) == (2, oci.INDEX, oci.BUNDLE)
    assert len(index["manifests"]) == 3
    first = index["manifests"][0]
    assert first["annotations"]["vnd.sdxl-trt.sm"] == "89"
    assert first["annotations"]["vnd.sdxl-trt.flavour"] == "tensorrt-rtx"
    document = get(f"http://{real.host}/v2/team/spec/manifests/{first['digest']}")
    assert hashlib.sha256(document).hexdigest() == first["digest"][7:]
    image = json.loads(document)
    assert (image["artifactType"], image["config"]["mediaType"]) == (oci.BUNDLE, oci.TARGET)
    config = json.loads(get(f"http://{real.host}/v2/team/spec/blobs/{image['config']['digest']}"))
    assert config == json.loads(json.dumps(dataclasses.asdict(manifest.targets[0])))
    kinds = [layer["mediaType"] for layer in image["layers"]]
    assert kinds[0] == oci.BUNDLE_JSON
    assert {oci.WEIGHTS, oci.WEIGHTS_CONFIG, oci.DOCUMENT} == set(kinds[1:])
    chunks = manifest.targets[0].engines["vae_decoder"].file.chunks
    assert {chunk.sha256 for chunk in chunks} <= {layer["digest"][7:] for layer in image["layers"]}


def test_skopeo_reads_it_and_we_read_what_skopeo_wrote(real: Running, skopeo: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "home/built", seed="skopeo")
    send(tmp_path / "home/built", real.oci("team/skopeo:1"))
    plain = ["--src-tls-verify=false", f"docker://{real.host}/team/skopeo:1"]
    copy = [str(skopeo), "--insecure-policy", "copy", "--all", *plain]
    for target in (f"oci:{tmp_path}/layout:1", f"oci-archive:{tmp_path}/archive.tar:1"):
        subprocess.run([*copy, target], check=True, capture_output=True, env=os.environ | {"HOME": str(tmp_path)})
    for number, reference in enumerate((f"oci-layout:{tmp_path}/layout:1", f"{tmp_path}/archive.tar")):
        fetch(reference, tmp_path / f"pulled{number}")
        check(tmp_path / f"pulled{number}", EXACT)


def test_skopeo_reads_layouts_and_archives_that_we_wrote(skopeo: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "home/built", seed="skopeo")
    digest = send(tmp_path / "home/built", f"oci-layout:{tmp_path}/ours:1").digest
    send(tmp_path / "home/built", f"{tmp_path}/ours.tar")
    for number, source in enumerate((f"oci:{tmp_path}/ours:1", f"oci-archive:{tmp_path}/ours.tar:latest")):
        command = [str(skopeo), "--insecure-policy", "copy", "--all", source, f"oci:{tmp_path}/theirs{number}:1"]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"HOME": str(tmp_path)})
        blobs = {path.name for path in (tmp_path / f"theirs{number}/blobs/sha256").iterdir()}
        ours = {path.name for path in (tmp_path / "ours/blobs/sha256").iterdir()}
        assert blobs - ours <= {
            json.loads((tmp_path / f"theirs{number}/index.json").read_bytes())["manifests"][0]["digest"][7:]
        }
        assert ours - blobs <= {digest[7:]}, "all but the index, which skopeo writes anew"


def test_an_empty_file(real: Running, tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path / "home/built")
    store = BlobStore(tmp_path / "home/built")
    files = manifest.files | {"licence/NOTICE": store.put_bytes(b"")}
    write_manifest(tmp_path / "home/built", dataclasses.replace(manifest, files=files))
    send(tmp_path / "home/built", real.oci("team/empty:1"))
    fetch(real.oci("team/empty:1"), tmp_path / "pulled")
    check(tmp_path / "pulled", EXACT)


def test_oras_reads_it(real: Running, tmp_path: Path) -> None:
    client = pytest.importorskip("oras.client", reason="oras is not installed (extra dev)")
    make_bundle(tmp_path / "home/built", seed="oras")
    pushed = send(tmp_path / "home/built", real.oci("team/oras:1"))
    index = json.loads(get(f"http://{real.host}/v2/team/oras/manifests/{pushed.digest}"))
    digest = index["manifests"][0]["digest"]
    oras = client.OrasClient(insecure=True, hostname=real.host)
    oras.pull(target=f"{real.host}/team/oras@{digest}", outdir=str(tmp_path / "pulled"))
    # Layers are named by their places in the bundle, so what oras writes is a bundle but for what is to be whole.
    store, manifest = BlobStore(tmp_path / "pulled"), read_manifest(tmp_path / "pulled")
    for blob in manifest.blobs(manifest.targets[0]).values():
        store.check(blob, "a file of the bundle")


def test_passwords_of_docker_login(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"me:{SECRET}\n")
    make_bundle(tmp_path / "home/built")
    with registry(tmp_path / "registry", auth=f"{{htpasswd: {{realm: r, path: {tmp_path}/users}}}}") as own:
        with pytest.raises(TransferError, match="wants a user and a password"):
            send(tmp_path / "home/built", own.oci("team/sdxl:1"))
        for password, works in (("wrong", False), ("secret", True)):
            auth = base64.b64encode(f"me:{password}".encode()).decode()
            (tmp_path / "docker").mkdir(exist_ok=True)
            (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {own.host: {"auth": auth}}}))
            if works:
                send(tmp_path / "home/built", own.oci("team/sdxl:1"))
                fetch(own.oci("team/sdxl:1"), tmp_path / "pulled")
            else:
                with pytest.raises(TransferError, match="user me"):
                    send(tmp_path / "home/built", own.oci("team/sdxl:1"))
    check(tmp_path / "pulled", EXACT)


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *extra], check=True, capture_output=True)
    make_bundle(tmp_path / "home/built")
    with registry(tmp_path / "registry", tls=f"{{certificate: {certificate}, key: {key}}}") as own:
        with pytest.raises(Unreachable, match="certificate that this host does not trust"):
            send(tmp_path / "home/built", own.oci("team/sdxl:1"))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        send(tmp_path / "home/built", own.oci("team/sdxl:1"))
        fetch(own.oci("team/sdxl:1"), tmp_path / "pulled")
    check(tmp_path / "pulled", EXACT)
