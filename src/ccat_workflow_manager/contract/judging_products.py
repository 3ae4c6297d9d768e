"""What is said of products."""

from ccat_ops_db.states import DataProductType
from ccat_workflow_manager.contract.saying import Said, broken, kept, not_judged, some, warned
from ccat_workflow_manager.contract.telling import cause, succeeded, without_success
from ccat_workflow_manager.contract.values import Case, Made, Seen, Trial

_REFUSED = "its output is refused as a whole, see `products`"
_NOTHING = "it made no product"


def required_outputs(case: Case) -> Said:
    """Whether it made what its step has to make."""
    made = _collected(case)
    if made is None:
        return not_judged(without_success(case))
    if made.refused:
        return not_judged(_REFUSED)
    if made.missing:
        hint = f"; in the workspace it left {some(made.elsewhere)}: write into WORKFLOW_OUTPUT_DIR"
        return broken(f"{made.missing}{hint if made.elsewhere else ''}")
    return kept(f"it made {some([one.path for one in made.products])}")


def acceptable(case: Case) -> Said:
    """Whether the collector takes every product."""
    made = _collected(case)
    if made is None:
        return not_judged(without_success(case))
    if made.refused:
        return broken(made.refused)
    if not made.products:
        return not_judged(_NOTHING)
    size = sum(one.size_bytes for one in made.products)
    return kept(f"each of {len(made.products)} can be collected, {size:,} bytes in all")


def annotations(case: Case) -> Said:
    """Whether it describes its products in a way that can be kept."""
    made = _collected(case)
    if made is None:
        return not_judged(without_success(case))
    if made.refused:
        return not_judged(_REFUSED)
    if made.misdescribed:
        return broken(made.misdescribed)
    return kept("products.json and qa/metrics.json are valid where it writes them")


def sorting(case: Case) -> Said:
    """Whether a final step says what its products are for."""
    if not case.subject.is_final:
        return kept("an intermediate step sorts its products as it likes; --final tests a final one")
    made = _collected(case)
    if made is None or not made.products:
        return not_judged(without_success(case) if made is None else _nothing_of(made))
    unsorted = [one.path for one in made.products if one.type is DataProductType.INTERMEDIATE]
    if unsorted:
        where = "science/, qa/, plots/, statistics/ or logs/"
        return warned(f"{some(unsorted)} would be called intermediate: write what people want into {where}")
    return kept("every product lies in a directory that says what it is for")


def same_bytes(case: Case) -> Said:
    """Whether the same again makes the same."""
    again = case.seen.get(Trial.AGAIN)
    if again is None:
        return not_judged(without_success(case))
    if not succeeded(again):
        code = again.observation.exit_code
        return broken(f"the same again ended with exit code {code}, and must end as before: {cause(case, again)}")
    first, second = (_checksums(one) for one in (case.seen[Trial.RUN], again))
    differing = sorted(path for path in {*first, *second} if first.get(path) != second.get(path))
    if not differing and not first:
        return not_judged(_nothing_of(case.seen[Trial.RUN].made))
    if differing:
        remedy = "leave times of day, run ids and paths of the attempt out"
        return warned(f"{some(differing)} differs, so every re-run causes work downstream: {remedy}")
    return kept("the same again, as another run, made the same bytes")


def _collected(case: Case) -> Made | None:
    first = case.seen[Trial.RUN]
    return first.made if succeeded(first) else None


def _nothing_of(made: Made) -> str:
    return _REFUSED if made.refused else _NOTHING


def _checksums(seen: Seen) -> dict[str, str]:
    return {one.path: one.checksum for one in seen.made.products}
