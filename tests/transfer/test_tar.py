import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccat_data_transfer.plan import tar_bytes
from ccat_data_transfer.tar import CHUNK, DamagedTar, TarWriter, read_tar

names = st.text("abü", min_size=1).flatmap(lambda name: st.sampled_from([name, f"{'x' * 150}/{name}"]))
contents = st.dictionaries(names, st.binary(max_size=1100), max_size=4)


def make_tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    tar = TarWriter(out)
    for name, data in files.items():
        tar.add(name, len(data), io.BytesIO(data))
    tar.close()
    return out.getvalue()


def unpack(tar: bytes) -> dict[str, bytes]:
    return {name: content.read() for name, content in read_tar(io.BytesIO(tar))}


@given(contents)
def test_what_goes_into_a_tar_comes_out_of_it(files: dict[str, bytes]) -> None:
    tar = make_tar(files)

    assert unpack(tar) == files
    assert make_tar(files) == tar
    assert len(tar) <= tar_bytes((name, len(data)) for name, data in files.items())


class Dripping(io.BytesIO):
    """Gives little at a time, as the network does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(7 if size is None or size < 0 else min(size, 7))


@given(contents)
def test_it_does_not_matter_in_which_pieces_a_tar_arrives(files: dict[str, bytes]) -> None:
    tar = Dripping(make_tar(files))

    assert {name: content.read() for name, content in read_tar(tar)} == files


def test_what_nobody_reads_of_a_tar_is_passed_over() -> None:
    files = {"large": bytes(2 * CHUNK + 1), "small": b"small", "last": bytes(600)}
    tar = io.BytesIO(make_tar(files))

    assert [name for name, _ in read_tar(tar)] == list(files)
    assert [content.read(2) for _, content in read_tar(io.BytesIO(make_tar(files)))] == [b"\0\0", b"sm", b"\0\0"]


def test_everybody_can_read_the_tar() -> None:
    with tarfile.open(fileobj=io.BytesIO(make_tar({"a/b.fits": b"data"}))) as tar:
        (member,) = tar.getmembers()

    assert (member.name, member.size, member.mtime, member.uid, member.uname) == ("a/b.fits", 4, 0, 0, "")


def test_a_file_cut_short_while_it_is_packed_is_noticed() -> None:
    with pytest.raises(EOFError):
        TarWriter(io.BytesIO()).add("a.fits", 10, io.BytesIO(b"short"))


@pytest.mark.parametrize("size", [100, 512, 700, 1500])
def test_a_tar_cut_short_or_without_sense_never_gives_a_whole_file(size: int) -> None:
    tar = make_tar({"a.fits": b"a" * 3000})

    with pytest.raises(DamagedTar):
        assert unpack(tar[:size])["a.fits"] != b"a" * 3000


def test_a_link_in_a_tar_is_damage() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("a.fits")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)

    with pytest.raises(DamagedTar, match=r"a\.fits.* is no plain file"):
        unpack(out.getvalue())
