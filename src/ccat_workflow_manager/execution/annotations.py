"""What the software says about its products, in `products.json` and `qa/metrics.json`; both are optional.

`products.json` maps the path of a product to its `media_type`, `description`, `metadata` and `metrics`;
`qa/metrics.json` maps names to numbers, which become the run's quality metrics.
"""

import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ccat_ops_db.definitions.words import Json
from ccat_ops_db.errors import CcatError
from ccat_ops_db.naming import nearest
from ccat_workflow_manager.execution.products import Product
from ccat_workflow_manager.execution.scan import ANNOTATIONS_FILE

METRICS_FILE: Final = "qa/metrics.json"
_MOST_BYTES: Final = 100_000_000
"""Of a file of annotations, which is held in memory: a few hundred for each of many thousand products."""

T = TypeVar("T")
Metrics = dict[str, Annotated[float, Field(strict=True, allow_inf_nan=False)]]


class AnnotationInvalid(CcatError):
    """The software describes its products in a way that cannot be kept."""

    code = "annotation_invalid"

    def __init__(self, file: str, *, where: str, problem: str) -> None:
        super().__init__(f"{file} that the software wrote is invalid{where and f' at {where}'}: {problem}")
        self.file = file


class Annotation(BaseModel):
    """What `products.json` says about one product."""

    model_config = ConfigDict(extra="forbid")

    media_type: str | None = None
    description: str | None = None
    metadata: Json = {}
    metrics: Metrics = {}


_ANNOTATIONS: Final = TypeAdapter(dict[str, Annotation])
_METRICS: Final = TypeAdapter(Metrics)


def annotate(products: Sequence[Product], output: Path) -> tuple[Product, ...]:
    """Return the products with what `products.json` says about them. Raises AnnotationInvalid."""
    said = _read(output, ANNOTATIONS_FILE, _ANNOTATIONS)
    if not said:
        return tuple(products)
    known = [product.path for product in products]
    for path in said:
        if path not in known:
            raise AnnotationInvalid(
                ANNOTATIONS_FILE, where=path, problem=f"there is no such product.{nearest(path, known)}"
            )
    return tuple(product.model_copy(update=dict(said.get(product.path, Annotation()))) for product in products)


def read_metrics(output: Path) -> dict[str, float]:
    """Return the run's quality metrics; none where the software wrote none. Raises AnnotationInvalid."""
    return _read(output, METRICS_FILE, _METRICS)


def _read(output: Path, file: str, form: TypeAdapter[dict[str, T]]) -> dict[str, T]:
    try:
        _confirm_readable(output / file, file)
        text = (output / file).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        raise AnnotationInvalid(file, where="", problem="nobody may read it") from error
    except UnicodeDecodeError as error:
        raise AnnotationInvalid(file, where="", problem="it is not UTF-8") from error
    try:
        return form.validate_python(_parse(text))
    except ValidationError as error:
        first = error.errors()[0]
        raise AnnotationInvalid(file, where=".".join(map(str, first["loc"])), problem=first["msg"]) from error
    except RecursionError as error:
        raise AnnotationInvalid(file, where="", problem="it is nested too deeply") from error
    except ValueError as error:
        raise AnnotationInvalid(file, where="", problem=str(error)) from error


def _confirm_readable(place: Path, file: str) -> None:
    """A pipe would never be read to its end, nor what is larger than memory."""
    status = place.stat()
    if stat.S_ISDIR(status.st_mode):
        raise AnnotationInvalid(file, where="", problem="it is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise AnnotationInvalid(file, where="", problem="it is no regular file")
    if status.st_size > _MOST_BYTES:
        problem = f"it has {status.st_size:,} bytes, and {_MOST_BYTES:,} are the most; leave details to a product"
        raise AnnotationInvalid(file, where="", problem=problem)


def _parse(text: str) -> Any:
    """Read JSON of the kind that a database keeps: no NaN, no NUL, no half of a surrogate pair."""
    content = json.loads(text, parse_constant=_refuse_constant)
    if "\\u0000" in json.dumps(content):
        message = "it contains a NUL character"
        raise ValueError(message)
    json.dumps(content, ensure_ascii=False).encode()
    return content


def _refuse_constant(constant: str) -> NoReturn:
    message = f"{constant} is not a number that JSON knows"
    raise ValueError(message)
