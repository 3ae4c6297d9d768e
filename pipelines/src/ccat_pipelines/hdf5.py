"""HDF5 files in which every header and every chunk of data carries a checksum; nothing damaged is taken for data.

Data sets lie side by side in the root group, without groups of their own.
"""

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ccat_pipelines.contract import InputFile
from ccat_pipelines.errors import DamagedFileError

LAYOUT = h5py.h5f.LIBVER_V110  # the superblock and headers of older layouts have no checksums

KINDS: dict[type, tuple[tuple[type, ...], str]] = {float: ((float, int), "number"), str: ((str,), "text")}


@dataclass(frozen=True)
class Tree:
    """Attributes of the file, and its data sets by name."""

    attributes: Mapping[str, Any]
    data: Mapping[str, np.ndarray]


def read(file: InputFile, *, wants: Mapping[str, tuple[str, ...]], attributes: Mapping[str, type]) -> Tree:
    """Return the wanted data sets of a file that is what was registered.

    Args:
        file: the input.
        wants: the data sets with the names of their axes; an axis has the same length wherever it appears.
        attributes: those that the file must have, with `float` or `str` as their type; all are returned.
    """
    content = file.read()
    file.confirm(content)  # first of all: the parser is no place for unknown bytes
    tree = _parse(file.path, content, wants)
    for name, kind in attributes.items():
        types, word = KINDS[kind]
        if not isinstance(tree.attributes.get(name), types):
            problem = f"is {tree.attributes[name]!r}, no {word}" if name in tree.attributes else "is missing"
            raise DamagedFileError(file.path, part=f"attribute {name}", problem=problem)
    _compare_axes(file.path, tree.data, wants)
    return tree


def _parse(path: Path, content: bytes, wants: Collection[str]) -> Tree:
    part, data = "its HDF5 structure", dict[str, np.ndarray]()
    try:
        with h5py.File(io.BytesIO(content), "r") as tree:
            attributes = {name: _attribute(tree, name) for name in tree.attrs}
            for name in wants:
                part = f"data set {name}"
                data[name] = _load(tree, name)
    except Exception as error:  # whatever a parser trips over in a damaged file, the file is damaged
        raise DamagedFileError(path, part=part, problem=" ".join(str(error).split())) from error
    return Tree(attributes, data)


def _load(tree: h5py.File, name: str) -> np.ndarray:
    if name not in tree:
        raise ValueError("is missing")
    values = np.asarray(tree[name])
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("has values that are no numbers")
    return values


def _attribute(tree: h5py.File, name: str) -> Any:
    text = h5py.check_string_dtype(tree.attrs.get_id(name).dtype)
    if text is not None and text.length is None:
        problem = "is text of variable length, which HDF5 keeps without a checksum: give it a fixed one"
        raise ValueError(f"attribute {name} {problem}")
    value = tree.attrs[name]
    return value.decode() if isinstance(value, bytes) else value.item() if isinstance(value, np.generic) else value


def _compare_axes(path: Path, data: Mapping[str, np.ndarray], wants: Mapping[str, tuple[str, ...]]) -> None:
    lengths: dict[str, int] = {}
    for name, axes in wants.items():
        expected = tuple(lengths.setdefault(axis, size) for axis, size in zip(axes, data[name].shape, strict=False))
        if data[name].ndim != len(axes) or data[name].shape != expected:
            problem = f"has the shape {data[name].shape}, wanted is ({', '.join(axes)}) as in the others"
            raise DamagedFileError(path, part=f"data set {name}", problem=problem)


def write(path: Path, *, attributes: Mapping[str, Any], data: Mapping[str, np.ndarray]) -> None:
    """Write a file; the same content always makes the same bytes, in whatever order it is given."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)  # the root group would keep the time of day
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(LAYOUT, LAYOUT)
    with h5py.File(h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, fcpl=creation, fapl=access)) as tree:
        for name, value in sorted(attributes.items()):
            tree.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value
        for name, values in sorted(data.items()):
            packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
            tree.create_dataset(name, data=values, track_times=False, **packed)
