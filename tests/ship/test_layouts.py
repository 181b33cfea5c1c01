"""Image layouts in folders, archives and at URLs; and hostile ones."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from shipped import EXACT, contents, host, make_bundle

from sdxl_trt.errors import OutputError, SdxlTrtError, TransferError
from sdxl_trt.ship import oci
from sdxl_trt.ship.choosing import choose_for
from sdxl_trt.ship.pull import Pulled, pull
from sdxl_trt.ship.push import Pushed, push
from sdxl_trt.ship.references import parse_reference
from sdxl_trt.ship.remote import open_remote


def send(bundle: Path, reference: str) -> Pushed:
    with open_remote(parse_reference(reference), write=True) as remote:
        return push(bundle, remote)


def fetch(reference: str, folder: Path, sm: int | None = 89) -> Pulled:
    wanted = parse_reference(reference)
    with open_remote(wanted, write=False) as remote:
        return pull(wanted, remote, folder, choose_for([host(sm)], fix="-"))


@pytest.fixture
def built(tmp_path: Path) -> Path:
    make_bundle(tmp_path / "home" / "built")
    return tmp_path / "home" / "built"


@pytest.mark.parametrize(
    "form", ["oci-layout:{}/layout", "oci-layout:{}/layout:v1.2", "file://{}/layout:x", "{}/a.tar"]
)
def test_there_and_back(built: Path, tmp_path: Path, form: str) -> None:
    reference = form.format(tmp_path / "place")
    pushed = send(built, reference)
    pulled = fetch(reference, tmp_path / "pulled")
    assert (pulled.digest, pulled.choice.target.name) == (pushed.digest, EXACT)
    assert pulled.received.fetched > 20
    again = send(built, reference)
    assert again.digest == pushed.digest
    if not reference.endswith(".tar"):  # which is written anew
        assert again.sent == 0


def test_folders_by_url(built: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    reference = f"memory://{tmp_path.name}/layout:1"
    send(built, reference)
    assert send(built, reference).sent == 0
    assert fetch(reference, tmp_path / "pulled").received.fetched > 20


def test_what_fails_at_a_url_is_not_kept(built: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    reference = f"memory://{tmp_path.name}/failed:1"
    chunk = next(path for path in (built / "blobs/sha256").iterdir() if path.stat().st_size > 20_000)
    chunk.write_bytes(bytes(chunk.stat().st_size))
    with pytest.raises(SdxlTrtError, match="damaged"):
        send(built, reference)
    files = fsspec.filesystem("memory").find(f"/{tmp_path.name}/failed")
    assert not any(chunk.name in file or "index.json" in file for file in files)


@pytest.mark.parametrize("url", ["nosuch://place/x", "s3://bucket/x"])
def test_urls_of_unknown_kinds(built: Path, url: str) -> None:
    with pytest.raises(TransferError, match="cannot be used"):
        send(built, url)


def test_archives_are_the_same_for_the_same_bundle(built: Path, tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        send(built, str(tmp_path / name))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert {"oci-layout", "index.json"} < set(archive.getnames())


def test_several_tags_in_one_layout(built: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "home" / "other", seed="b")
    place = f"oci-layout:{tmp_path}/layout"
    send(built, f"{place}:a")
    send(tmp_path / "home" / "other", f"{place}:b")
    for tag, bundle in (("a", built), ("b", tmp_path / "home" / "other")):
        fetch(f"{place}:{tag}", tmp_path / tag)
        assert (tmp_path / tag / "bundle.json").read_bytes() == (bundle / "bundle.json").read_bytes()
    with pytest.raises(TransferError, match=r"there is no .*:c[\s\S]*a, b"):
        fetch(f"{place}:c", tmp_path / "c")


def test_an_archive_that_fails_leaves_nothing(built: Path, tmp_path: Path) -> None:
    chunk = next(path for path in (built / "blobs/sha256").iterdir() if path.stat().st_size > 20_000)
    chunk.write_bytes(bytes(chunk.stat().st_size))
    with pytest.raises(SdxlTrtError, match="damaged"):
        send(built, str(tmp_path / "out" / "a.tar"))
    assert list((tmp_path / "out").iterdir()) == []


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info.tobuf(tarfile.GNU_FORMAT)


BLOB = "blobs/sha256/" + "a" * 64
HOSTILE: dict[str, bytes] = {
    "up": member("../evil", size=0),
    "absolute": member("/etc/passwd"),
    "up in blobs": member("blobs/sha256/../../evil"),
    "symbolic link": member(BLOB, tarfile.SYMTYPE, link="/etc/passwd"),
    "hard link": member(BLOB, tarfile.LNKTYPE, link="/etc/passwd"),
    "device": member(BLOB, tarfile.CHRTYPE),
    "pipe": member(BLOB, tarfile.FIFOTYPE),
    "sparse": member(BLOB, tarfile.GNUTYPE_SPARSE, size=512) + bytes(512),
    "twice": member("index.json") + member("index.json"),
    "twice by another name": member("index.json") + member("./index.json"),
    "behind the end": member(BLOB, size=2**40),
    "something else": member("readme.txt"),
    "a folder of others": member("other/", tarfile.DIRTYPE),
    "an endless header": member("x", tarfile.XHDTYPE, size=2**33) + bytes(512),
    "a header of megabytes": member("x", tarfile.XHDTYPE, size=2**24) + bytes(2**24) + member("index.json"),
    "a long name of megabytes": member("x", tarfile.GNUTYPE_LONGNAME, size=2**24) + bytes(2**24),
    "a negative size": member("x", tarfile.XHDTYPE, size=512)
    + b"13 size=-512\n".ljust(512, b"\0")
    + member("index.json"),
    "no archive": b"not a tar" * 200,
    "compressed": b"\x1f\x8b\x08" + bytes(600),
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tar").write_bytes(HOSTILE[name] + bytes(1024))
    with pytest.raises(TransferError) as caught:
        fetch(f"{tmp_path}/a.tar", tmp_path / "pulled")
    print(caught.value.got)
    assert not (tmp_path / "pulled").exists()


def test_archives_that_end_early(built: Path, tmp_path: Path) -> None:
    send(built, str(tmp_path / "a.tar"))
    data = (tmp_path / "a.tar").read_bytes()
    for end in (1, 511, 512, 700, len(data) // 2, len(data) - 2000):
        (tmp_path / "a.tar").write_bytes(data[:end])
        with pytest.raises(TransferError):
            fetch(f"{tmp_path}/a.tar", tmp_path / "pulled")


def altered_index(**changes: object) -> Callable[[dict[str, object]], bytes]:
    return lambda index: json.dumps(index | changes).encode()


GARBAGE: dict[str, Callable[[dict[str, object]], bytes]] = {
    "nothing": lambda _: b"",
    "no JSON": lambda _: b"\xff\xfe{",
    "a list": lambda _: b"[]",
    "deep": lambda _: b"[" * 100_000,
    "large": lambda _: b" " * (oci.MAX_BYTES + 1),
    "a key twice": lambda _: b'{"mediaType":"x","mediaType":"y"}',
    "other media type": altered_index(mediaType="application/vnd.docker.distribution.manifest.v2+json"),
    "other schema": altered_index(schemaVersion=1),
    "unknown field": altered_index(evil=1),
    "no manifests": altered_index(manifests=[]),
    "manifests of others": altered_index(
        manifests=[{"mediaType": oci.MANIFEST, "digest": "sha256:" + "0" * 64, "size": 3}]
    ),
    "a path for a digest": altered_index(
        manifests=[{"mediaType": oci.MANIFEST, "digest": "sha256:../../x", "size": 3}]
    ),
    "a huge size": altered_index(
        manifests=[
            {
                "mediaType": oci.MANIFEST,
                "digest": "sha256:" + "0" * 64,
                "size": 2**49,
                "annotations": {oci.TARGET_NAME: "x"},
            }
        ]
    ),
    "NaN": lambda _: b'{"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":NaN,"manifests":[]}',
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_instead_of_an_index(built: Path, tmp_path: Path, name: str) -> None:
    place = tmp_path / "layout"
    pushed = send(built, f"oci-layout:{place}")
    original = json.loads((place / "blobs/sha256" / pushed.digest[7:]).read_bytes())
    data = GARBAGE[name](original)
    descriptor = oci.Descriptor.of(data, oci.INDEX)
    (place / "blobs/sha256" / descriptor.sha256).write_bytes(data)
    (place / "index.json").write_bytes(oci.dump(oci.Index(manifests=(descriptor,))))
    with pytest.raises(TransferError) as caught:
        fetch(f"oci-layout:{place}", tmp_path / "pulled")
    print(caught.value)
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize("name", ["nothing", "no JSON", "a list", "deep", "large", "a key twice", "unknown field"])
def test_garbage_instead_of_index_json(built: Path, tmp_path: Path, name: str) -> None:
    place = tmp_path / "layout"
    send(built, f"oci-layout:{place}")
    (place / "index.json").write_bytes(GARBAGE[name](json.loads((place / "index.json").read_bytes())))
    with pytest.raises(TransferError):
        fetch(f"oci-layout:{place}", tmp_path / "pulled")


def _rewrite(place: Path, change: Callable[[oci.ImageManifest], oci.ImageManifest]) -> None:
    """Other manifests under the layout's tag, with right digests."""
    top = oci.parse(oci.Index, (place / "index.json").read_bytes(), "")
    index = oci.parse(oci.Index, (place / "blobs/sha256" / top.manifests[0].sha256).read_bytes(), "")
    entries = []
    for entry in index.manifests:
        manifest = oci.parse(oci.ImageManifest, (place / "blobs/sha256" / entry.sha256).read_bytes(), "")
        data = oci.dump(change(manifest))
        made = oci.Descriptor.of(data, oci.MANIFEST, annotations=entry.annotations)
        (place / "blobs/sha256" / made.sha256).write_bytes(data)
        entries.append(made)
    data = oci.dump(dataclasses.replace(index, manifests=tuple(entries)))
    made = oci.Descriptor.of(data, oci.INDEX)
    (place / "blobs/sha256" / made.sha256).write_bytes(data)
    (place / "index.json").write_bytes(oci.dump(oci.Index(manifests=(made,))))


def _without_layers(manifest: oci.ImageManifest) -> oci.ImageManifest:
    return dataclasses.replace(manifest, layers=())


def _two_manifests(manifest: oci.ImageManifest) -> oci.ImageManifest:
    return dataclasses.replace(manifest, layers=(*manifest.layers, manifest.layers[0]))


def _of_another_kind(manifest: oci.ImageManifest) -> oci.ImageManifest:
    return dataclasses.replace(manifest, artifactType="application/vnd.example")


def _large_bundle_json(manifest: oci.ImageManifest) -> oci.ImageManifest:
    return dataclasses.replace(manifest, layers=(dataclasses.replace(manifest.layers[0], size=2**40),))


def _short_bundle_json(manifest: oci.ImageManifest) -> oci.ImageManifest:
    return dataclasses.replace(manifest, layers=(dataclasses.replace(manifest.layers[0], size=5),))


@pytest.mark.parametrize(
    "change", [_without_layers, _two_manifests, _of_another_kind, _large_bundle_json, _short_bundle_json]
)
def test_hostile_manifests(
    built: Path, tmp_path: Path, change: Callable[[oci.ImageManifest], oci.ImageManifest]
) -> None:
    place = tmp_path / "layout"
    send(built, f"oci-layout:{place}")
    _rewrite(place, change)
    with pytest.raises(TransferError) as caught:
        fetch(f"oci-layout:{place}", tmp_path / "pulled")
    print(caught.value)
    assert not (tmp_path / "pulled").exists()


def test_what_the_manifests_say_of_layers_does_not_count(built: Path, tmp_path: Path) -> None:
    """Files are fetched by the names in bundle.json, which a signature vouches for."""
    place = tmp_path / "layout"
    send(built, f"oci-layout:{place}")
    evil = oci.Descriptor.of(b"evil", oci.WEIGHTS, annotations={oci.TITLE: "../../evil"})

    def swap(manifest: oci.ImageManifest) -> oci.ImageManifest:
        return dataclasses.replace(manifest, layers=(manifest.layers[0], evil))

    (place / "blobs/sha256" / evil.sha256).write_bytes(b"evil")
    _rewrite(place, swap)
    fetch(f"oci-layout:{place}", tmp_path / "pulled", None)
    assert not any(evil.sha256 in name or "evil" in name for name in contents(tmp_path / "pulled"))


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.argv = ["sdxl-trt", *sys.argv[1:]]
from sdxl_trt.cli import main
main()
"""


@pytest.mark.parametrize("way", ["pull", "push to a folder", "push to an archive"])
def test_no_room(built: Path, tmp_path: Path, way: str) -> None:
    """Files over 20 kB cannot be written, as on a full disk; what fits stays for the next attempt."""
    place = f"oci-layout:{tmp_path}/layout"
    if way == "pull":
        send(built, place)
    arguments = {
        "pull": ["pull", place, "--gpu", "cpu", "-o", str(tmp_path / "pulled")],
        "push to a folder": ["push", str(built), f"oci-layout:{tmp_path}/full"],
        "push to an archive": ["push", str(built), f"{tmp_path}/full.tar"],
    }[way]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "ship", *arguments], capture_output=True, text=True, check=False
    )
    print(done.stderr)
    assert done.returncode == 1
    assert "error: cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "pulled/bundle.json").exists()
    assert not (tmp_path / "full/index.json").exists()
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".sdxl-trt-tmp-")]
    if way == "pull":
        fetch(place, tmp_path / "pulled", None)


def test_too_little_room_is_seen_before(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send(built, f"{tmp_path}/a.tar")
    usage = type("usage", (), {"free": 100_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="no room"):
        fetch(f"{tmp_path}/a.tar", tmp_path / "pulled")
