"""Hostile archives, manifests and cards: each is refused with one line that names the file and the field."""

import hashlib
import io
import json
import os
import stat
import struct
import zipfile

import pytest
from backbench.leaderboard.submission.archive import Limits

# Archives: (name, what makes the zip of a sealed forgery, the line) ---------------------------------------------------


def entry(name, data=b"x", mode=0o100644, method=zipfile.ZIP_DEFLATED):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # as it is, not as ZipInfo would have it
    info.external_attr, info.compress_type, info.create_system = mode << 16, method, 3
    return info, data


def with_entry(*args, **options):
    return lambda forged: forged.seal().zip([entry(*args, **options)])


def with_bytes(change):
    return lambda forged: change(forged.seal().zip())


def patched(name, field, value):
    """A zip whose listing says something else of an entry: `field` is an offset in its record."""

    def change(data):
        at = data.find(b"PK\x01\x02")
        while data[at + 46 : at + 46 + len(name)] != name.encode():
            at = data.find(b"PK\x01\x02", at + 4)
        return data[: at + field] + value + data[at + field + len(value) :]

    return with_bytes(change)


def twice(forged):
    data = io.BytesIO(forged.seal().zip())
    with zipfile.ZipFile(data, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("backbone.yaml", "source: timm\n")
    return data.getvalue()


def flipped(data):
    at = data.find(b"model: cnn-image-text")
    at = at if at > 0 else data.find(b"backbone.yaml") + 20
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


ZEROS = bytes(100 << 20)
ARCHIVES = {
    "traversal": (with_entry("../manifest.json"), r"\.\./manifest\.json: leads out of the bundle"),
    "deep traversal": (with_entry("results/../../x.json"), r"results/\.\./\.\./x\.json: leads out"),
    "backslashes": (with_entry("results\\..\\..\\x.json"), r"results.*: leads out of the bundle"),
    "absolute": (with_entry("/etc/cron.d/x"), r"/etc/cron\.d/x: is an absolute path"),
    "drive": (with_entry("C:/x.json"), r"C:/x\.json: is an absolute path"),
    "zero byte": (with_entry("environment.json\0.py"), r"environment\.json\\x00\.py: no such file"),
    "escape": (with_entry("results/\x1b[2J.json"), r"results/\\x1b\[2J\.json: no such file"),
    "link": (
        with_entry("weights/x.safetensors", b"/etc/passwd", stat.S_IFLNK | 0o777),
        r"weights/x\.safetensors: is a link",
    ),
    "fifo": (with_entry("weights/x.safetensors", b"", stat.S_IFIFO | 0o666), r"weights/x.*: is a special file"),
    "twice": (twice, r"backbone\.yaml: is in the archive twice"),
    "case": (with_entry("Backbone.yaml"), r"Backbone\.yaml: names are in lower case"),
    "case of data sets": (
        lambda f: f.seal().zip([entry("datasets/a.yaml"), entry("datasets/A.yaml")]),
        r"datasets/A\.yaml: differs from another name by case alone",
    ),
    "code": (with_entry("model.py", b"import os"), r"model\.py: no such file is part of a bundle"),
    "pickle": (with_entry("weights/net.pt"), r"weights/net\.pt: no such file"),
    "nested": (with_entry("results.zip"), r"results\.zip: is an archive within the archive"),
    "nested tar": (with_entry("predictions/0123456789abcdef.tar"), r"predictions/.*: is an archive within"),
    "bomb": (
        with_entry("predictions/0123456789abcdef.parquet", ZEROS),
        r"predictions/.*: unpacks to 100\.0 MiB from \d+ bytes, more than 100 to 1",
    ),
    "many small": (
        lambda f: f.seal().zip([entry(f"results/{i:016x}.json") for i in range(2000)]),
        r".*\.zip: it lists \d+ files|results/.*: is file number",
    ),
    "method": (
        with_entry("environment.json.", method=zipfile.ZIP_LZMA),
        r"environment\.json\.: is compressed by method 14",
    ),
    "encrypted": (patched("backbone.yaml", 8, struct.pack("<H", 1)), r"backbone\.yaml: is encrypted"),
    "declared gigabyte": (
        patched("predictions/0123456789abcdef.parquet", 24, struct.pack("<I", 1 << 30)),
        r"predictions/0123456789abcdef\.parquet: 1,024\.0 MiB, such a file may have",
    ),
    "declared too small": (patched("backbone.yaml", 24, struct.pack("<I", 3)), r"backbone\.yaml: cannot be unpacked"),
    "checksum": (patched("backbone.yaml", 16, b"\0\0\0\0"), r"backbone\.yaml: cannot be unpacked: Bad CRC-32"),
    "other name inside": (
        with_bytes(lambda d: d.replace(b"environment.json", b"environmental.py", 1)),
        r"environment\.json: cannot be unpacked: File name in directory",
    ),
    "no zip": (lambda f: b"#!/bin/sh\nrm -rf /\n", r".*\.zip: not a zip file"),
    "empty": (lambda f: b"", r".*\.zip: not a zip file"),
    "cut off": (with_bytes(lambda d: d[: len(d) // 2]), r".*\.zip: not a zip file"),
    "listing of millions": (
        with_bytes(lambda d: d[:-14] + struct.pack("<HHI", 65535, 65535, 1 << 30) + d[-6:]),
        r".*\.zip: it lists 65535 files|.*\.zip: not a zip",
    ),
}

# Manifests, cards: what is changed before or after sealing ------------------------------------------------------------


def manifest(**said):
    def change(forged):
        forged.seal()
        forged.manifest |= said

    return change


def raw(text):
    def change(forged):
        forged.seal()
        forged.raw = text(json.dumps(forged.manifest)) if callable(text) else text

    return change


def file(name, data, **said):
    def change(forged):
        forged.files[name] = data
        forged.seal(**said)

    return change


def without(name):
    def change(forged):
        del forged.files[name]
        forged.seal()

    return change


def stale(forged):
    """The score of the record is edited; the manifest keeps its old digest."""
    forged.seal()
    id = forged.record()["id"]
    text = forged.files[f"results/{id}.json"].replace(b'"seed":0', b'"seed":1')
    forged.files[f"results/{id}.json"] = text


def unlisted(forged):
    forged.seal()
    forged.files["datasets/more.yaml"] = b"kind: [pairs]\n"


def gone(forged):
    forged.seal()
    del forged.files["environment.json"]
    forged.files["datasets/more.yaml"] = b""


def anothers_key(forged):
    forged.seal()
    forged.manifest["submitter"] = hashlib.sha256(b"somebody").hexdigest()


def card(text):
    return file("backbone.yaml", b"name: mini/cnn-image-text\nsource: mini\nmodel: cnn-image-text\n" + text.encode())


ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
CARDS = {
    "no manifest": (raw(""), r"manifest\.json: \$: not valid JSON"),
    "NaN": (raw(lambda t: t.replace('"format": 1', '"format": NaN')), r"manifest\.json: \$: not valid JSON: NaN"),
    "deep": (raw("[" * 100_000), r"manifest\.json: \$: (lists and objects lie|not valid)"),
    "deep object": (
        raw('{"a":' * 200 + "1" + "}" * 200),
        r"manifest\.json: a\.a.*: lists and objects lie more than 20",
    ),
    "key twice": (raw(lambda t: '{"format": 1, ' + t[1:]), r"manifest\.json: \$: .*key 'format' is given twice"),
    "a list": (raw("[1]"), r"manifest\.json: \$: this is list"),
    "not UTF-8": (raw(b"\xff\xfe{}"), r"manifest\.json: \$: not valid JSON"),
    "long number": (raw('{"format": ' + "9" * 5000 + "}"), r"manifest\.json: \$: not valid JSON"),
    "future format": (manifest(format=2), r"manifest\.json: format: 2 is not read here"),
    "unknown key": (manifest(admin=True), r"manifest\.json: admin: unknown key"),
    "no key": (manifest(submitter="0" * 64), r"manifest\.json: signature: is not the submitter's"),
    "changed after signing": (manifest(suite="imagenet"), r"manifest\.json: signature: is not the submitter's"),
    "somebody else's key": (anothers_key, r"manifest\.json: signature: is not the submitter's"),
    "signature of another size": (manifest(signature="00"), r"manifest\.json: signature: "),
    "date to come": (
        lambda f: f.seal(created="2999-01-01T00:00:00Z"),
        r"manifest\.json: created: 2999.* is yet to come",
    ),
    "other zone": (manifest(created="2026-01-01T00:00:00+05:00"), r"manifest\.json: created: times are in UTC"),
    "markup in suite": (manifest(suite="<img src=x onerror=alert(1)>"), r"manifest\.json: suite: .*markup"),
    "SQL in suite": (manifest(suite="x'; DROP TABLE results; --"), r"manifest\.json: suite: "),
    "stale digest": (stale, r"results/\w+\.json: sha256: is not the manifest's; the file was changed"),
    "unlisted": (unlisted, r"datasets/more\.yaml: sha256: is in the bundle, its manifest does not list it"),
    "listed and gone": (gone, r"environment\.json: \$: is missing"),
    "no card": (without("backbone.yaml"), r"backbone\.yaml: \$: is missing"),
    "other size": (
        lambda f: f.seal() and f.files.update({"backbone.yaml": b"source: mini\n"}),
        r"backbone\.yaml: bytes: 13",
    ),
    "aliases": (
        card(f"model_args:\n{ALIASES}".replace("\n", "\n  ")),
        r"backbone\.yaml: .*more values than it has letters",
    ),
    "python tag": (card("paper: !!python/object/apply:os.system [ls]\n"), r"backbone\.yaml:4: not valid YAML"),
    "large card": (card("paper: " + "x" * (1 << 18)), r"backbone\.yaml: 0\.\d MiB, such a file may have"),
    "unknown key of a card": (card("exec: ls\n"), r"backbone\.yaml:4: exec: unknown key"),
    "remote code": (card("model_args: {trust_remote_code: true}\n"), r"backbone\.yaml.*trust_remote_code"),
    "path of a checkpoint": (
        card("checkpoint: /etc/passwd\ninput: {size: 64, mean: [0, 0, 0], std: [1, 1, 1]}\n"),
        r"backbone\.yaml: checkpoint\.path: '/etc/passwd' leads to a place on the reader's machine",
    ),
    "path in the arguments": (
        card("model_args: {checkpoint_path: ../../secret.pt}\n"),
        r"backbone\.yaml: model_args\.checkpoint_path: .* leads to a place",
    ),
    "file by URL": (
        card("checkpoint: file:///etc/passwd\ninput: {size: 64, mean: [0, 0, 0], std: [1, 1, 1]}\n"),
        r"backbone\.yaml: checkpoint\.path: .* leads to a place",
    ),
    "markup in a card": (card("paper: <script>alert(1)</script>\n"), r"backbone\.yaml: paper: .*markup"),
    "another network's card": (
        card("init_seed: 5\n"),
        r"results/.*: backbone\.card\.init_seed: 0, backbone\.yaml says 5",
    ),
    "another name": (
        file("backbone.yaml", b"name: mini/vit-masked\nsource: mini\nmodel: vit-masked\n"),
        r"backbone\.yaml: name: 'mini/vit-masked', the manifest says",
    ),
    "environment of lists": (file("environment.json", b'{"torch": ["2"]}'), r"environment\.json: torch: a version is"),
    "environment of megabytes": (
        file("environment.json", b" " * (1 << 17)),
        r"environment\.json: 0\.1 MiB, such a file",
    ),
    "card of no result": (
        file("datasets/other.yaml", b"name: other\nkind: [pairs]\nsource: captions\n"),
        r"datasets/other\.yaml: \$: no result of the bundle is on it",
    ),
    "catastrophic card": (file("datasets/o.yaml", b"kind: [[[[[[[["), r"datasets/o\.yaml:1: not valid YAML"),
    "weights that are none": (
        file("weights/net.safetensors", b"\x80\x04pickle"),
        r"weights/net\.safetensors: file: the card names no such checkpoint",
    ),
    "unverified of nothing": (
        lambda f: f.seal(unverified={"0" * 16: "lost"}),
        r"manifest\.json: unverified\.0+: is no result",
    ),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives(kind, forge, refused, tmp_path):
    make, line = ARCHIVES[kind]
    forged = forge("knn")
    if kind == "declared gigabyte":
        forged.files["predictions/0123456789abcdef.parquet"] = b"PAR1"
    (tmp_path / "b.zip").write_bytes(make(forged))
    refused(tmp_path / "b.zip", line)


@pytest.mark.parametrize("kind", CARDS)
def test_manifests_and_cards(kind, forge, refused, tmp_path):
    change, line = CARDS[kind]
    forged = forge("knn")
    change(forged)
    (tmp_path / "b.zip").write_bytes(forged.zip())
    refused(tmp_path / "b.zip", line)


def test_a_gigabyte_is_refused_before_it_is_read(refused, tmp_path):
    with (tmp_path / "b.zip").open("wb") as file:
        file.truncate(1 << 30)
    refused(tmp_path / "b.zip", r"b\.zip: 1,024\.0 MiB, a bundle may have 500\.0 MiB")


def test_a_folder_with_a_gigabyte_is_refused_before_it_is_read(refused, tmp_path):
    folder = tmp_path / "b" / "predictions"
    folder.mkdir(parents=True)
    with (folder / "0123456789abcdef.parquet").open("wb") as file:
        file.truncate(1 << 30)
    refused(tmp_path / "b", r"predictions/0123456789abcdef\.parquet: 1,024\.0 MiB, such a file")


@pytest.mark.parametrize("kind", ["link", "link to a folder", "pipe", "hidden", "folder"])
def test_folders(kind, refused, tmp_path):
    folder = tmp_path / "b"
    folder.mkdir()
    {
        "link": lambda: (folder / "manifest.json").symlink_to("/etc/passwd"),
        "link to a folder": lambda: (folder / "results").symlink_to("/etc"),
        "pipe": lambda: os.mkfifo(folder / "manifest.json"),
        "hidden": lambda: (folder / ".git").write_text("x"),
        "folder": lambda: (folder / "code").mkdir(),
    }[kind]()
    lines = {
        "link": r"manifest\.json: is a link",
        "link to a folder": r"results: is a link",
        "hidden": r"\.git: no such file",
    }
    lines |= {"pipe": r"manifest\.json: is a special file", "folder": r"code: is a folder"}
    refused(folder, lines[kind])


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        (Limits(packed=1000), r"b\.zip: 0\.0 MiB, a bundle may have"),
        (Limits(unpacked=1000), r"\S+: with it the bundle has"),
        (Limits(files=2), r"b\.zip: it lists 5 files, a bundle has 2 at most"),
    ],
)
def test_limits_hold(limits, line, forge, refused, tmp_path):
    (tmp_path / "b.zip").write_bytes(forge("knn").seal().zip())
    refused(tmp_path / "b.zip", line, limits=limits)
