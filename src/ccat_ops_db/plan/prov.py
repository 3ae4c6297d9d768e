"""A lineage as W3C PROV-JSON: products, raw packages and files are entities, runs activities, versions agents."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ccat_ops_db.plan.lineage import Execution, PackageNode, ProductNode, Provenance, RunNode

_OURS: Final = "ccat"
_Records = dict[str, dict[str, Any]]


def prov_json(provenance: Provenance) -> Mapping[str, Any]:
    """The document, as JSON; what it names is unique within the installation."""
    found = provenance.lineage
    products = {**found.products, found.product.id: found.product}
    documents: dict[str, Any] = {
        "prefix": {_OURS: f"urn:ccat:{provenance.installation}:"},
        "entity": {
            **{_id("product", one.id): _product(one) for one in products.values()},
            **{_id("package", one.id): _package(one) for one in found.packages.values()},
            **{_id("file", file.id): _file(file) for one in found.packages.values() for file in one.files},
        },
        "activity": {_id("run", one.id): _run(one, provenance.executions.get(one.id)) for one in found.runs.values()},
        "agent": {_version(one): _agent(one) for one in found.runs.values()},
        "wasGeneratedBy": _numbered("made", _made(products.values())),
        "used": _numbered("used", (use for run in found.runs.values() for use in _uses(run))),
        "wasAssociatedWith": _numbered("by", _associations(found.runs.values())),
        "wasDerivedFrom": _numbered("from", _derivations(products.values(), found.runs)),
        "hadMember": _numbered("member", _members(found.packages.values())),
    }
    return {name: records for name, records in documents.items() if records}


def _id(kind: str, number: object) -> str:
    return f"{_OURS}:{kind}-{number}"


def _numbered(kind: str, records: Any) -> _Records:
    return {f"_:{kind}{number}": record for number, record in enumerate(records, 1)}


def _type(name: str) -> dict[str, str]:
    return {"$": name, "type": "prov:QUALIFIED_NAME"}


def _facts(**facts: Any) -> dict[str, Any]:
    """Attributes of our own, without what is not known; what has parts is written as JSON by whoever writes this."""
    return {f"{_OURS}:{name}": value for name, value in facts.items() if value is not None}


def _product(one: ProductNode) -> dict[str, Any]:
    facts = _facts(type=one.type, state=one.state, size_bytes=one.size_bytes, checksum=one.checksum)
    return {"prov:label": one.path, "prov:type": _type(f"{_OURS}:DataProduct"), **facts}


def _package(one: PackageNode) -> dict[str, Any]:
    kinds = [_type(f"{_OURS}:RawDataPackage"), _type("prov:Collection")]
    lost = _facts(lost_files=[file.path for file in one.lost]) if one.lost else {}
    return {
        "prov:label": one.name,
        "prov:type": kinds,
        **_facts(scan=one.scan, source=one.source, checksum=one.checksum),
        **lost,
    }


def _file(one: Any) -> dict[str, Any]:
    facts = _facts(size_bytes=one.size_bytes, checksum=one.checksum)
    return {"prov:label": one.path, "prov:type": _type(f"{_OURS}:RawDataFile"), **facts}


def _run(one: RunNode, execution: Execution | None) -> dict[str, Any]:
    label = f"{one.pipeline}/{one.step} of {', '.join(map(str, one.sub_group.values())) or 'all'}"
    told = {"prov:label": label, "prov:type": _type(f"{_OURS}:Run"), **_facts(reason=one.reason, config=one.config)}
    told |= _facts(config_digest=one.config_digest)
    if execution is None:
        return told
    times = {"prov:startTime": execution.started_at, "prov:endTime": execution.ended_at}
    told |= {name: moment.isoformat() for name, moment in times.items() if moment is not None}
    told |= _facts(attempt=execution.attempt, exit_code=execution.exit_code, host=execution.host, image=execution.image)
    told |= {f"{_OURS}:command": list(execution.command)} if execution.command else {}
    variables = [f"{name}={value}" for name, value in execution.environment.items()]
    parameters, resources = _values(execution.parameters), _values(execution.resources)
    lists = {"environment": variables, "parameter": parameters, "resource": resources}
    return told | {f"{_OURS}:{name}": values for name, values in lists.items() if values}


def _values(named: Mapping[str, Any]) -> list[str]:
    """Each as `name=JSON`, as PROV knows no values that have parts."""
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in named.items()]


def _version(run: RunNode) -> str:
    return _id("version", f"{run.software}-{run.version}")


def _agent(run: RunNode) -> dict[str, Any]:
    kind = _type("prov:SoftwareAgent")
    return {"prov:label": f"{run.software} {run.version}", "prov:type": kind, **_facts(digest=run.software_digest)}


def _made(products: Any) -> Iterator[dict[str, Any]]:
    for one in products:
        yield {"prov:entity": _id("product", one.id), "prov:activity": _id("run", one.run_id)}


def _uses(run: RunNode) -> Iterator[dict[str, Any]]:
    for one in run.package_ids:
        pixels = _facts(excluded_pixels=list(run.excluded_pixels[one])) if one in run.excluded_pixels else {}
        yield {"prov:activity": _id("run", run.id), "prov:entity": _id("package", one), "prov:role": "raw", **pixels}
    taken = [("upstream", _id("product", one)) for one in run.product_ids]
    taken += [(f"auxiliary {name}", _id("product", one)) for name, ids in run.auxiliary.items() for one in ids]
    for role, entity in taken:
        yield {"prov:activity": _id("run", run.id), "prov:entity": entity, "prov:role": role}


def _associations(runs: Any) -> Iterator[dict[str, Any]]:
    for run in runs:
        yield {"prov:activity": _id("run", run.id), "prov:agent": _version(run)}


def _derivations(products: Any, runs: Mapping[int, RunNode]) -> Iterator[dict[str, Any]]:
    for product in products:
        for use in _uses(runs[product.run_id]):
            generated = {"prov:generatedEntity": _id("product", product.id), "prov:usedEntity": use["prov:entity"]}
            yield {**generated, "prov:activity": use["prov:activity"]}


def _members(packages: Any) -> Iterator[dict[str, Any]]:
    for package in packages:
        for file in package.files:
            yield {"prov:collection": _id("package", package.id), "prov:entity": _id("file", file.id)}
