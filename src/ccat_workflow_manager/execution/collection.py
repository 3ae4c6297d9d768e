"""From what a job left behind to published products: look, write down, rename. Repeating it ends the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Final

from ccat_ops_db.errors import CcatError
from ccat_workflow_manager.execution.annotations import annotate, read_metrics
from ccat_workflow_manager.execution.durable import sync_directory, write_read_only
from ccat_workflow_manager.execution.layout import RunLayout
from ccat_workflow_manager.execution.products import Collected, Product
from ccat_workflow_manager.execution.scan import scan

_LONGEST_LIST: Final = 10


class RequiredOutputMissing(CcatError):
    """The software ended well but did not make what its step must make."""

    code = "required_output_missing"

    def __init__(self, pattern: str | None = None, *, found: Sequence[str]) -> None:
        shown = ", ".join(found[:_LONGEST_LIST]) or "nothing"
        more = f" and {len(found) - _LONGEST_LIST} more" if len(found) > _LONGEST_LIST else ""
        wanted = "any product" if pattern is None else f"the required output {pattern}"
        super().__init__(f"the software ended with exit code 0 but did not write {wanted}; it wrote {shown}{more}")
        self.pattern = pattern
        self.found = tuple(found)


class OutputGone(CcatError):
    """Neither the output of the attempt nor products published from it are there."""

    code = "output_gone"

    def __init__(self, output: Path) -> None:
        super().__init__(f"the output {output} is gone and was not published from this attempt: run the step again")
        self.output = output


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What the collector of a run has to know."""

    run: RunLayout
    attempt: int
    step_key: str
    is_final: bool
    required_outputs: Sequence[str] = ()

    @cached_property
    def output(self) -> Path:
        """Where the software wrote."""
        return self.run.attempt(self.attempt).products(self.step_key, is_final=self.is_final)

    @cached_property
    def record(self) -> Path:
        """Where it is written down what the software made."""
        return self.run.attempt(self.attempt).collected


def collect(collection: Collection) -> Collected:
    """Publish what a job made that ended with exit code 0, and return it; a second call returns the same.

    The caller lets nobody else collect the same run meanwhile, and knows that no product of it is registered. Raises
    OutputGone, or what `examine` raises.
    """
    if is_published(collection):
        return Collected.model_validate_json(collection.record.read_bytes())
    collected = examine(collection)
    publish(collection)
    return collected


def is_published(collection: Collection) -> bool:
    """Whether this very attempt is published. Raises OutputGone."""
    if collection.output.is_dir():
        return False
    if not (collection.run.products.exists() and collection.record.exists()):
        raise OutputGone(collection.output)
    return True


def examine(collection: Collection) -> Collected:
    """Write down, and return, what the software made, once it is complete, valid, read-only and on disk.

    Raises RequiredOutputMissing, OutputRefused or AnnotationInvalid.
    """
    output = collection.output
    products = scan(output, is_final=collection.is_final)
    confirm_required(products, collection)
    collected = Collected(products=annotate(products, output), metrics=read_metrics(output))
    content = collected.model_dump_json(indent=2).encode()
    write_read_only(collection.record, content, is_kept=True)
    return Collected.model_validate_json(content)


def publish(collection: Collection) -> None:
    """Give the output its final name: the one moment at which all products come to be.

    What an earlier attempt published, and was never registered, is set aside.
    """
    if collection.run.products.exists():
        collection.run.products.rename(collection.run.set_aside(before=collection.attempt))
    collection.output.rename(collection.run.products)
    sync_directory(collection.run.directory)


def confirm_required(products: Sequence[Product], collection: Collection) -> None:
    """Raise RequiredOutputMissing unless everything is there that the step must make."""
    found = [product.path for product in products]
    if not found and not collection.required_outputs:
        raise RequiredOutputMissing(found=found)
    for pattern in collection.required_outputs:
        if not _matches(pattern, collection.output) & set(found):
            raise RequiredOutputMissing(pattern, found=found)


def _matches(pattern: str, output: Path) -> set[str]:
    """Return the paths that match; a pattern that makes no sense matches nothing."""
    return set(glob(pattern, root_dir=output, recursive=True, include_hidden=True))  # noqa: PTH207 Path.glob raises
