from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from ccat_data_transfer.backends.errors import BadFile, FileUnreadable
from ccat_ops_db.errors import CcatError
from ccat_ops_db.states import LocationType
from ccat_service.retries import first_line

_TOLD: Final = 10


def some(problems: Sequence[str]) -> str:
    """The first of several problems, and how many more there are."""
    more = len(problems) - _TOLD
    return "; ".join([*problems[:_TOLD], *([f"and {more} more"] if more > 0 else [])])


class BadRawFiles(CcatError):
    """Raw files are not what their instrument registered, so that their package is not packed."""

    code = "bad_raw_files"

    def __init__(self, package: str, package_id: int, problems: Sequence[BadFile]) -> None:
        super().__init__(
            f"Package {package} is not packed: {some([error.problem for error in problems])}. "
            f"Restore what the instrument registered, or, where the file is right as it is, register it as such "
            f"(`ccat scan add --replace`); then `ccat package retry {package_id}`. "
            "Nothing was archived, nothing was deleted. "
            f"Where a file is gone for good, `ccat package lost {package_id} FILE` has the rest packed."
        )


class PackedOtherwise(CcatError):
    """An archived package, packed again from the same raw files, became another tar than archives have."""

    code = "packed_otherwise"

    def __init__(self, package: str, package_id: int, *, archived: str, packed: str) -> None:
        super().__init__(
            f"Package {package} is archived as a tar with {archived}, and packed again it has {packed}, though its raw "
            "files are what their instrument registered: tars were made otherwise then. Nothing was replaced, and the "
            "archive copies that are left are sound. Have it packed by a transfer worker of the version that archived "
            f"it, then `ccat package retry {package_id}`."
        )


class BadProducts(CcatError):
    """Products are not what was registered, so that they are not archived; the others of their run are."""

    code = "bad_products"

    def __init__(self, run_id: int, problems: Sequence[BadFile]) -> None:
        named = some([error.problem for error in problems])
        super().__init__(
            f"Of run {run_id} not everything is archived: {named}. Unless it is made again anyhow, restore what "
            f"was registered, then `ccat run archive {run_id}`."
        )


class NotServed(CcatError):
    """Nobody takes the messages of an operation at a location."""

    code = "not_served"
    begins = "No transfer-worker serves "

    def __init__(self, location: str, operation: str, *, is_served: bool = False) -> None:
        super().__init__(
            f"{self.begins}{location} for {operation}, which this waits for, though some do other work there: "
            "they are of another version, start them anew."
            if is_served
            else f"{self.begins}{location}, where this waits for {operation}: "
            f"start `ccat transfer-worker --location {location}` on a host that has it."
        )


class NoArchiveForProducts(CcatError):
    """There is no archive that products can get to from where they are made."""

    code = "no_archive_for_products"

    def __init__(self, location: str) -> None:
        super().__init__(
            f"There is no active long-term archive that products of location {location} can get to: add one at its "
            "site, or one in an object store at any site, with `ccat location add`; or `ccat route add` a route to the "
            "site of an archive, where a buffer receives them. It goes on by itself then."
        )


class NothingToArchive(CcatError):
    """Runs were named whose products need not be archived."""

    code = "nothing_to_archive"

    def __init__(self, run_ids: Sequence[int]) -> None:
        super().__init__(
            f"Of {', '.join(f'run {one}' for one in run_ids)} there is nothing to archive: archived are current "
            "products of steps that say `archive: true`, unless they are in an archive or on their way. Nothing was "
            "changed."
        )


class ProductIsFetchedElse(CcatError):
    """A copy of a product is not what was registered, so another is fetched, if there is one."""

    code = "product_is_fetched_else"
    transient = True

    def __init__(self, product: str, problem: BadFile) -> None:
        super().__init__(f"Product {product} is brought from another copy, if there is one: {problem.problem}.")


class ProductsSpoiled(CcatError):
    """Products that were on their way to an archive are damaged or gone in the buffer that they came to."""

    code = "products_spoiled"
    transient = True

    def __init__(self, run_id: int, problems: Sequence[BadFile]) -> None:
        named = some([error.problem for error in problems])
        super().__init__(f"Products of run {run_id} have to be sent again from where they were made: {named}.")


class ProductsUnread(CcatError):
    """Products cannot be read while others at their location can, so that they are not archived; the others are."""

    code = "products_unread"
    transient = True

    def __init__(self, run_id: int, problems: Sequence[CcatError]) -> None:
        named = some([str(problem).removesuffix(".") for problem in problems])
        super().__init__(f"Of run {run_id} not everything is archived yet, the others are: {named}.")


class BroughtInVain(CcatError):
    """What is brought from another site is bad, and may be sound where it comes from."""

    code = "brought_in_vain"
    transient = True

    def __init__(self, at: str, problems: Mapping[int, BadFile]) -> None:
        self.problems = problems
        """By the copy that was to be brought."""
        named = some([error.problem for error in problems.values()])
        super().__init__(
            f"Not brought: {named}. It is read again where it lies, and not sent before; another copy is taken "
            f"meanwhile, if there is one. If it is sound there, check the disk of location {at} and the way to it."
        )


class CopyUnread(CcatError):
    """A copy cannot be read that something is to be made of, while its location can be."""

    code = "copy_unread"
    transient = True

    def __init__(self, copy_id: int, problem: FileUnreadable) -> None:
        self.copy_id = copy_id
        self.problem = problem
        super().__init__(f"{problem} It is read again where it lies; another copy is taken meanwhile, if there is one.")


class SoundWhereItLies(CcatError):
    """A copy that cannot be had was read where it lies meanwhile, and found right: who wants it is in trouble."""

    code = "sound_where_it_lies"
    transient = True

    def __init__(self, problems: Collection[CcatError], *, by: str) -> None:
        named = some([str(problem).removesuffix(".") for problem in problems])
        super().__init__(
            f"Not brought: {named}. But where it lies it was read since, and found right there: see what {by} may "
            "read, its disk, and the way between. Another copy is taken meanwhile, if there is one."
        )


class CopyInDoubt(CcatError):
    """A copy is to be read where it lies, before it is sent from there."""

    code = "copy_in_doubt"
    transient = True

    def __init__(self, what: str, location: str) -> None:
        super().__init__(
            f"{what} waits for its copy at {location} to be read again there: it arrived damaged somewhere, could not "
            "be read, or was restored. The transfer-workers of that location do so."
        )


class NoProductCopy(CcatError):
    """There is no copy that a product could be brought from."""

    code = "no_product_copy"

    def __init__(self, product: str, location: str, copies: Sequence[str], *, remedy: str) -> None:
        found = f"that at {', that at '.join(copies)}" if copies else "all were deleted"
        super().__init__(f"Product {product} has no copy that could be brought to {location}: {found}. {remedy}")


class RegisteredAnew(CcatError):
    """Raw files were corrected while they were being packed."""

    code = "registered_anew"
    transient = True

    def __init__(self, package: str) -> None:
        super().__init__(f"Raw files of package {package} were corrected while they were being packed.")


class BadBufferCopy(CcatError):
    """The tar in a buffer is damaged or gone before it was archived."""

    code = "bad_buffer_copy"
    transient = True

    def __init__(self, package: str, problem: BadFile) -> None:
        super().__init__(f"Package {package} has to be packed again from its source: {problem.problem}.")


LOSSES: Final = (BadBufferCopy, ProductsSpoiled)
"""What is on its way was lost where it had come to."""


class NameOfAnother(CcatError):
    """An archive has something else under the name of a package, that this installation never put there."""

    code = "name_of_another"

    def __init__(self, package: str, package_id: int, *, archive: str, where: Path | str) -> None:
        super().__init__(
            f"Package {package} is not archived at {archive}: {where} is there already, is something else, and is not "
            "known here, as after a restored backup. The description beside it says what it is: keep it elsewhere, "
            f"then `ccat package retry {package_id}`. Nothing was overwritten."
        )


class BadArchiveCopy(CcatError):
    """The tar in an archive is not what was archived."""

    code = "bad_archive_copy"

    def __init__(self, package: str, package_id: int, problem: BadFile) -> None:
        super().__init__(
            f"Package {package} is not staged: {problem.problem}. This archive copy is marked and not used any more. "
            f"Once it is restored there, `ccat package retry {package_id}` has it used again."
        )


class AnotherIsUsed(CcatError):
    """The tar in an archive is not what was archived, and there is another, or will be."""

    code = "another_is_used"
    transient = True

    def __init__(self, package: str, problem: BadFile) -> None:
        super().__init__(
            f"Package {package} is staged from another archive copy, which may have to be made first: "
            f"{problem.problem}."
        )


class ArchiveCopyComing(CcatError):
    """There is no sound archive copy of a package just now; one is being made."""

    code = "archive_copy_coming"
    transient = True

    def __init__(self, package: str) -> None:
        super().__init__(f"Package {package} has no sound archive copy to stage from just now; one is being made.")


class ArchiveOutOfReach(CcatError):
    """Sound archive copies of a package lie only on disks of sites from which nothing leads to where it is wanted."""

    code = "archive_out_of_reach"
    transient = True

    def __init__(self, package: str, location: str, archives: Sequence[str]) -> None:
        super().__init__(
            f"Package {package} cannot be brought to {location} from {' or '.join(archives)}: no direct route leads "
            "from that site. `ccat route add` makes one."
        )


class NoArchiveCopy(CcatError):
    """There is no archive copy that a package could be staged from."""

    code = "no_archive_copy"

    def __init__(self, package: str, package_id: int, copies: Sequence[str]) -> None:
        found = f"that at {', that at '.join(copies)} and cannot be made anew" if copies else "it was never archived"
        super().__init__(
            f"Package {package} has no sound archive copy to stage from: {found}. Restore that tar there, or its raw "
            f"files where they were recorded, then `ccat package retry {package_id}`, or `ccat package exclude` it."
        )


class CopyInTheWay(CcatError):
    """The row of another copy of the same object at the same location is not done with yet."""

    code = "copy_in_the_way"
    transient = True

    def __init__(self, package: str, location: str, status: str) -> None:
        super().__init__(
            f"Package {package} has a copy at location {location} that is {status}; it is waited for. Where it stays, "
            "`ccat alerts` tells what keeps it."
        )


class ProductCopyInTheWay(CcatError):
    """The row of another copy of a product at the same location is not done with yet."""

    code = "product_copy_in_the_way"
    transient = True

    def __init__(self, product: str, status: str) -> None:
        super().__init__(f"Product {product} has a copy there that is {status}; it is waited for.")


class CopyIsLetGo(CcatError):
    """The last copy that something could be brought from is being deleted, or could not be."""

    code = "copy_is_let_go"
    transient = True

    def __init__(self, what: str, location: str, copies: Sequence[str]) -> None:
        super().__init__(
            f"{what} cannot be brought to {location} just now: that at {', that at '.join(copies)}. What was let go "
            "before it was asked for is waited for: it goes, or is there again."
        )


class NoLocation(CcatError):
    """Data have nowhere to go."""

    code = "no_location"

    def __init__(self, location_type: LocationType, where: str) -> None:
        super().__init__(
            f"There is no active {location_type} location {where}: add one with `ccat location add`, or "
            "`ccat location set SITE/NAME --active`, and packing goes on by itself."
        )


class NoBackend(CcatError):
    """No backend can read and write this kind of storage, or not as it is needed."""

    code = "no_backend"

    def __init__(self, location: str, storage: str) -> None:
        super().__init__(
            f"Location {location} is on {storage}, which cannot be used for this: archives are on disk or s3, and "
            "everything else is on disk. Put a disk or an S3 gateway in front of it, and add that with "
            "`ccat location add`."
        )


class BadArrivals(CcatError):
    """Packages came to another site with other bytes than were sent."""

    code = "bad_arrivals"
    transient = True

    def __init__(self, parcel: str, problems: Sequence[str]) -> None:
        super().__init__(
            f"Transfer package {parcel} did not arrive whole; what is bad is sent again: {some(problems)}."
        )


class GivenUp(CcatError):
    """The workers of a transfer were lost too often."""

    code = "given_up"

    def __init__(self, tries: int) -> None:
        super().__init__(
            f"The process that worked on it ended unexpectedly {tries} times; look for the cause in the logs of the "
            "transfer workers."
        )


class PassingTrouble(CcatError):
    """Something that a transfer needs did not work just then."""

    code = "passing_trouble"
    transient = True

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"Interrupted by trouble that passes ({first_line(error)}).")


class DefectMet(CcatError):
    """A transfer met an error that nobody foresaw."""

    code = "defect_met"

    def __init__(self, error: BaseException, worker: str) -> None:
        super().__init__(
            f"Unexpected {type(error).__name__}: {first_line(error)}. "
            f"The log of {worker} has the rest; please report it."
        )


class UnknownTransfer(CcatError):
    """A data transfer was named that does not exist."""

    code = "unknown_transfer"

    def __init__(self, transfer_id: int | str) -> None:
        super().__init__(f"There is no data transfer {transfer_id}; `ccat transfer status` lists them.")


class TransferGoesOn(CcatError):
    """A retry was asked for a data transfer that has not failed."""

    code = "transfer_goes_on"

    def __init__(self, transfer_id: int, status: str) -> None:
        super().__init__(f"Data transfer {transfer_id} is {status}; what can be retried is a failed one.")


class NothingToRetry(CcatError):
    """A retry was asked for a package that does not need one."""

    code = "nothing_to_retry"

    def __init__(self, package: str, state: str) -> None:
        super().__init__(
            f"Package {package} is {state}; what can be retried is a failed package, one that waits after trouble, or "
            "an archived one of which an archive copy was lost or could not be made. Nothing was changed."
        )
