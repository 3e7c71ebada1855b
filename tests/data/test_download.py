"""Downloads without a network: archives that lie where torchvision would have put them."""

import hashlib
import io
import tarfile

import pytest
from copies import make_caltech, make_stl10
from torchvision import datasets

from codistill.config.data import DataConfig
from codistill.data import download
from codistill.data.sources import load_source
from codistill.errors import InputError


def archive(path, folder, extra=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "w:gz" if path.suffix == ".gz" else "w"
    with tarfile.open(path, mode) as tar:
        for entry in sorted(folder.iterdir()):
            tar.add(entry, entry.name)
        for member, content in extra:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


def link(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def test_stl10_is_unpacked_and_read(tmp_path, monkeypatch):
    make_stl10(tmp_path / "made")
    checksum = archive(tmp_path / "root" / "stl10_binary.tar.gz", tmp_path / "made")
    monkeypatch.setattr(datasets.STL10, "tgz_md5", checksum)
    # Its second look asks for the checksums of the true files.
    monkeypatch.setattr(datasets.STL10, "_STL10__loadfile", lambda *_: (None, None))
    data = load_source(DataConfig(source="stl10", root=str(tmp_path / "root"), download=True))
    assert len(data.train) == 20


@pytest.mark.parametrize("old_torchvision", [True, False])
@pytest.mark.parametrize(
    "members",
    [
        [(tarfile.TarInfo("../escaped.txt"), b"x")],
        [
            (link("stl10_binary/way", ".."), b""),
            (tarfile.TarInfo("stl10_binary/way/../../escaped.txt"), b"x"),
        ],
        [(link("out", "/"), b"")],
    ],
)
def test_an_archive_cannot_write_outside_its_folder(tmp_path, monkeypatch, members, old_torchvision):
    make_stl10(tmp_path / "made", per_class=1)
    checksum = archive(tmp_path / "root" / "stl10_binary.tar.gz", tmp_path / "made", members)
    monkeypatch.setattr(datasets.STL10, "tgz_md5", checksum)
    if old_torchvision:  # Which asks for no filter.
        original = tarfile.TarFile.extractall
        monkeypatch.setattr(
            tarfile.TarFile, "extractall", lambda self, path=".", filter=None: original(self, path)
        )
    with pytest.raises(InputError, match=r"data.download: stl10 cannot be downloaded into .*root'") as raised:
        load_source(DataConfig(source="stl10", root=str(tmp_path / "root"), download=True))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.rglob("escaped.txt"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["made", "root"]


def test_an_absolute_name_stays_below_the_folder(tmp_path, monkeypatch):
    make_stl10(tmp_path / "made", per_class=1)
    outside = tmp_path / "outside" / "escaped.txt"
    members = [(tarfile.TarInfo(str(outside)), b"x")]
    checksum = archive(tmp_path / "root" / "stl10_binary.tar.gz", tmp_path / "made", members)
    monkeypatch.setattr(datasets.STL10, "tgz_md5", checksum)
    monkeypatch.setattr(datasets.STL10, "_STL10__loadfile", lambda *_: (None, None))
    load_source(DataConfig(source="stl10", root=str(tmp_path / "root"), download=True))
    assert not outside.exists()
    assert [path.is_relative_to(tmp_path / "root") for path in tmp_path.rglob("escaped.txt")] == [True]


def test_the_filter_is_given_back():
    before = getattr(tarfile.TarFile, "extraction_filter", None)
    with download._nothing_leaves_its_folder():
        assert tarfile.TarFile.extraction_filter is tarfile.data_filter
    assert getattr(tarfile.TarFile, "extraction_filter", None) is before


def test_caltech256_is_unpacked_and_read(tmp_path, monkeypatch):
    make_caltech(tmp_path / "made", layout="256_ObjectCategories")
    from torchvision.datasets import caltech

    original = caltech.download_and_extract_archive
    checksum = archive(tmp_path / "root" / "caltech256" / "256_ObjectCategories.tar", tmp_path / "made")
    monkeypatch.setattr(
        caltech,
        "download_and_extract_archive",
        lambda url, root, filename, md5: original(url, root, filename=filename, md5=checksum),
    )
    data = load_source(
        DataConfig(source="caltech256", root=str(tmp_path / "root"), download=True, image_size=8)
    )
    assert (len(data.train), len(data.test)) == (12, 3)
