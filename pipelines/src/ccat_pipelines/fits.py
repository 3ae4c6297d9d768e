"""FITS files that are verified bit by bit when read, and written with CHECKSUM and DATASUM.

astropy only warns of a wrong checksum, and leaves padding unchecked; here either is an error.
"""

import io
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from ccat_pipelines.contract import Card, InputFile
from ccat_pipelines.errors import DamagedFileError

ALL_ONES = 0xFFFFFFFF


def read(file: InputFile, *, wants: Mapping[str, Iterable[str]], checksums: bool = True) -> dict[str, Any]:
    """Return the header-data units by name, PRIMARY first; the file is verified down to its last bit.

    Args:
        file: the input; its content must also be what was registered.
        wants: the units that have to be there, each with the keywords or columns that it must have.
        checksums: whether every unit must carry CHECKSUM; other observatories' files often do not.
    """
    content = file.read()
    units = _parse(file.path, content, checksums=checksums)
    file.confirm(content)
    for name, keys in wants.items():
        if name not in units:
            raise DamagedFileError(file.path, part=f"HDU {name}", problem="is missing")
        _demand(file.path, units[name], keys)
    return units


def _parse(path: Path, content: bytes, *, checksums: bool) -> dict[str, Any]:
    units: dict[str, Any] = {}
    where = "0 (PRIMARY)"
    try:
        with warnings.catch_warnings(), fits.open(io.BytesIO(content), memmap=False) as hdus:
            warnings.simplefilter("error")  # astropy only warns of truncated files and cards that it cannot read
            for number, hdu in enumerate(hdus):
                where = f"{number} ({hdu.name})"
                if checksums:
                    _verify(content, hdu)
                _ = hdu.data  # loads it while the file is open
                units[hdu.name] = hdu
                where = f"{number + 1}"
    except Exception as error:  # whatever a parser trips over in a damaged file, the file is damaged
        problem = str(error).strip().replace("\n", " ") or type(error).__name__
        raise DamagedFileError(path, part=f"HDU {where}", problem=problem) from error
    return units


def _demand(path: Path, hdu: Any, keys: Iterable[str]) -> None:
    there = {*hdu.header, *(hdu.columns.names if hasattr(hdu, "columns") else ())}
    missing = [key for key in keys if key not in there]
    if missing:
        raise DamagedFileError(path, part=f"HDU {hdu.name}", problem=f"has no {', '.join(missing)}")


def _verify(content: bytes, hdu: Any) -> None:
    """Raise unless the unit's words, with padding and CHECKSUM, add up to all ones (FITS standard 4.0, appendix J)."""
    span = hdu.fileinfo()
    words = content[span["hdrLoc"] : span["datLoc"] + span["datSpan"]]
    if "CHECKSUM" not in hdu.header:
        raise ValueError("it has no CHECKSUM")
    if ones_complement_sum(words) != ALL_ONES:
        raise ValueError("its content does not agree with its CHECKSUM")


def ones_complement_sum(content: bytes) -> int:
    """Return the 32-bit ones' complement sum that FITS checksums are made of; the length is a multiple of 4."""
    total = int(np.frombuffer(content, dtype=">u4").sum(dtype=np.uint64))
    while total > ALL_ONES:
        total = (total & ALL_ONES) + (total >> 32)
    return total


def columns(hdu: Any) -> dict[str, Any]:
    """Return the columns of a table extension as native arrays, text as text."""
    arrays = {name: np.asarray(hdu.data[name]) for name in hdu.columns.names}
    return {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()}


def native(hdu: Any) -> np.ndarray:
    """Return an image extension in this machine's byte order, which arithmetic is fast in."""
    return np.asarray(hdu.data).astype(np.float32)


def primary(cards: Any, stamp: Iterable[Card] = (), data: np.ndarray | None = None) -> fits.PrimaryHDU:
    """Return a primary unit that says what the file is and where it came from, with or without data."""
    hdu = fits.PrimaryHDU(None if data is None else data.astype(np.float32, copy=False))
    hdu.header.update(cards)
    hdu.header.extend(stamp, update=True)
    for stale in ("CHECKSUM", "DATASUM"):
        hdu.header.remove(stale, ignore_missing=True)
    return hdu


def image(name: str, data: np.ndarray, cards: Mapping[str, Any] | None = None) -> fits.ImageHDU:
    """Return an image extension of 32-bit floats."""
    hdu = fits.ImageHDU(data.astype(np.float32, copy=False), name=name)
    hdu.header.update(cards or {})
    return hdu


def table(name: str, columns: Mapping[str, Any], units: Mapping[str, str] | None = None) -> fits.BinTableHDU:
    """Return a binary table of equally long columns, with units where there are any for a column's name."""
    arrays = {key: np.asarray(values) for key, values in columns.items()}
    layout = [(key, array.dtype, array.shape[1:]) for key, array in arrays.items()]
    rows = np.empty(len(next(iter(arrays.values()))), dtype=layout)
    for key, array in arrays.items():
        rows[key] = array
    definitions = fits.ColDefs(rows)
    for column in definitions:
        column.unit = (units or {}).get(column.name)
    return fits.BinTableHDU.from_columns(definitions, name=name)


def write(path: Path, *hdus: Any) -> None:
    """Write the units with CHECKSUM and DATASUM; the same units always make the same bytes."""
    hdulist = fits.HDUList(list(hdus))
    hdulist.update_extend()
    for hdu in hdulist:
        hdu.add_checksum(when="FITS checksum")  # astropy's own comment is the time of day
    hdulist.writeto(path, overwrite=True)
