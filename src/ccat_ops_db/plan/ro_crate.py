"""A lineage as an RO-Crate of the Workflow Run profile: what was executed, on what, with what, and what came of it.

Products and raw files stay where they are: the crate names them with their checksums. It holds beside its metadata one
file, the workflow: the steps that were executed.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ccat_ops_db.plan.lineage import Execution, PackageNode, ProductNode, Provenance, RawFileNode, RunNode

WORKFLOW_FILE: Final = "workflow.json"
METADATA_FILE: Final = "ro-crate-metadata.json"
_CRATE: Final = "https://w3id.org/ro/crate/1.1"
_PROFILES: Final = (
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
)
_TERMS: Final = {
    name: f"https://w3id.org/ro/terms/workflow-run#{name}" for name in ("containerImage", "environment", "sha256")
}
"""Those of the profile that the context of all crates lacks."""
_LANGUAGE: Final = "#workflow-language"
_LICENSE: Final = "#license"
_Entity = dict[str, Any]


def ro_crate(provenance: Provenance) -> Mapping[str, Any]:
    """The files of the crate, by name, each as JSON."""
    workflow = _workflow(provenance.lineage.runs.values())
    return {METADATA_FILE: _metadata(provenance, workflow), WORKFLOW_FILE: workflow}


def _workflow(runs: Iterable[RunNode]) -> Any:
    """The steps that were executed, with what they execute, and from which steps they took something."""
    steps = {(one.pipeline, one.step, one.software, one.version, one.config, one.config_digest) for one in runs}
    names = ("pipeline", "step", "software", "version", "config", "config_digest")
    return {"steps": [dict(zip(names, step, strict=True)) for step in sorted(steps, key=str)]}


def _metadata(provenance: Provenance, workflow: Any) -> Any:
    graph = _Graph(provenance)
    return {"@context": [f"{_CRATE}/context", _TERMS], "@graph": list(graph.entities(workflow))}


class _Graph:
    """The entities of a crate; each names others by their ids."""

    def __init__(self, provenance: Provenance) -> None:
        self.provenance = provenance
        self.found = provenance.lineage
        self.products = {**self.found.products, self.found.product.id: self.found.product}
        self.made_by = _by_run(self.products.values())
        self.made_at = _latest(provenance.executions.values())

    def entities(self, workflow: Any) -> Iterator[_Entity]:
        """All of them."""
        yield from self._about(workflow)
        yield from (self._product(one) for one in self.products.values())
        for package in self.found.packages.values():
            yield self._package(package)
            yield from (self._file(one) for one in package.files)
        yield from {one["@id"]: one for one in map(self._software, self.found.runs.values())}.values()
        yield self._whole()
        for run in self.found.runs.values():
            execution = self.provenance.executions.get(run.id)
            yield self._action(run, execution)
            yield from self._settings(run, execution)

    def urn(self, kind: str, number: object) -> str:
        """The id of something that lies elsewhere: unique among all installations."""
        return f"urn:ccat:{self.provenance.installation}:{kind}:{number}"

    def _about(self, workflow: Any) -> Iterator[_Entity]:
        """The crate itself, its profiles and its workflow."""
        product = self.found.product
        parts = [WORKFLOW_FILE, *(self.urn("product", one) for one in self.products)]
        parts += [self.urn("package", one) for one in self.found.packages]
        yield {
            "@id": METADATA_FILE,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": [{"@id": _CRATE}, {"@id": _PROFILES[-1][0]}],
        }
        yield {
            "@id": "./",
            "@type": "Dataset",
            "name": f"Lineage of {product.path}",
            "description": f"What product {product.id} of installation {self.provenance.installation} was made of.",
            "datePublished": self.made_at.isoformat() if self.made_at else "1970-01-01",
            "license": {"@id": _LICENSE},
            "conformsTo": [{"@id": one} for one, *_ in _PROFILES],
            "hasPart": [{"@id": one} for one in parts],
            "mainEntity": {"@id": WORKFLOW_FILE},
            "mentions": [{"@id": "#lineage"}, *({"@id": self.urn("run", one)} for one in self.found.runs)],
        }
        about = "Products are used as their observatory says."
        yield {"@id": _LICENSE, "@type": "CreativeWork", "name": "as the observatory says", "description": about}
        for number, name, version in _PROFILES:
            yield {"@id": number, "@type": "CreativeWork", "name": name, "version": version}
        yield {
            "@id": WORKFLOW_FILE,
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
            "name": f"Steps that made {product.path}",
            "encodingFormat": "application/json",
            "programmingLanguage": {"@id": _LANGUAGE},
            "hasPart": sorted_ids(self._software_id(one) for one in self.found.runs.values()),
            "description": f"{len(workflow['steps'])} steps, each with its software and config.",
        }
        yield {"@id": _LANGUAGE, "@type": "ComputerLanguage", "name": "CCAT pipelines", "version": "1"}

    def _product(self, one: ProductNode) -> _Entity:
        about = f"{one.type} product, {one.state}"
        return {"@id": self.urn("product", one.id), "description": about, **_data(one)}

    def _package(self, one: PackageNode) -> _Entity:
        lost = f", without {', '.join(file.path for file in one.lost)}, lost before it was packed" if one.lost else ""
        return {
            "@id": self.urn("package", one.id),
            "@type": "Dataset",
            "name": one.name,
            "description": f"Raw data of {one.source}, scan {one.scan}{lost}",
            "hasPart": [{"@id": self.urn("file", file.id)} for file in one.files],
        }

    def _file(self, one: RawFileNode) -> _Entity:
        return {"@id": self.urn("file", one.id), **_data(one)}

    def _software_id(self, run: RunNode) -> str:
        return self.urn("version", f"{run.software}-{run.version}")

    def _software(self, run: RunNode) -> _Entity:
        return {
            "@id": self._software_id(run),
            "@type": "SoftwareApplication",
            "name": run.software,
            "softwareVersion": run.version,
            "identifier": run.software_digest,
            "description": f"Reduction software of step {run.step}",
        }

    def _whole(self) -> _Entity:
        """The execution of the workflow as a whole: from raw packages to the product."""
        return {
            "@id": "#lineage",
            "@type": "CreateAction",
            "name": f"All that led to {self.found.product.path}",
            "instrument": {"@id": WORKFLOW_FILE},
            "object": [{"@id": self.urn("package", one)} for one in self.found.packages],
            "result": [{"@id": self.urn("product", self.found.product.id)}],
            **({"endTime": self.made_at.isoformat()} if self.made_at else {}),
        }

    def _action(self, run: RunNode, execution: Execution | None) -> _Entity:
        taken = [self.urn("package", one) for one in run.package_ids]
        taken += [self.urn("product", one) for one in run.product_ids]
        taken += [self.urn("product", one) for ids in run.auxiliary.values() for one in ids]
        settings = [one["@id"] for one in self._settings(run, execution) if one.get("additionalType") == "parameter"]
        made = [self.urn("product", one) for one in self.made_by[run.id]]
        sub_group = ", ".join(map(str, run.sub_group.values())) or "all"
        return {
            "@id": self.urn("run", run.id),
            "@type": "CreateAction",
            "name": f"{run.pipeline}/{run.step} of {sub_group}",
            "description": "; ".join([f"Run {run.id}: {run.reason}", *self._without(run)]),
            "instrument": {"@id": self._software_id(run)},
            "object": [{"@id": one} for one in (*dict.fromkeys(taken), *settings)],
            "result": [{"@id": one} for one in made],
            **(self._how(run, execution) if execution else {}),
        }

    def _without(self, run: RunNode) -> Iterator[str]:
        """Pixels that it left out."""
        for package_id, pixels in run.excluded_pixels.items():
            yield f"without pixels {', '.join(pixels)} of {self.found.packages[package_id].name}"

    def _how(self, run: RunNode, execution: Execution) -> _Entity:
        times = {"startTime": execution.started_at, "endTime": execution.ended_at}
        told: _Entity = {name: moment.isoformat() for name, moment in times.items() if moment is not None}
        variables = [{"@id": self._setting("environment", run, name)} for name in execution.environment]
        status = "CompletedActionStatus" if execution.exit_code == 0 else "FailedActionStatus"
        if execution.exit_code is not None:
            told["actionStatus"] = {"@id": f"http://schema.org/{status}"}
        if variables:
            told["environment"] = variables
        if execution.command or execution.host:
            command = " ".join(execution.command)
            told["disambiguatingDescription"] = f"attempt {execution.attempt} on {execution.host}: {command}"
        return told

    def _setting(self, kind: str, run: RunNode, name: str) -> str:
        return f"#{kind}-{run.id}-{name}"

    def _settings(self, run: RunNode, execution: Execution | None) -> Iterator[_Entity]:
        """Variables of the environment, and parameters."""
        if execution is None:
            return
        for kind, values in (("environment", execution.environment), ("parameter", execution.parameters)):
            for name, value in values.items():
                text = value if isinstance(value, str) else json.dumps(value)
                told = {"@type": "PropertyValue", "name": name, "value": text, "additionalType": kind}
                yield {"@id": self._setting(kind, run, name), **told}


def sorted_ids(ids: Iterable[str]) -> list[dict[str, str]]:
    """References to these, each once."""
    return [{"@id": one} for one in sorted(set(ids))]


def _by_run(products: Iterable[ProductNode]) -> Mapping[int, Sequence[int]]:
    made: defaultdict[int, list[int]] = defaultdict(list)
    for one in products:
        made[one.run_id].append(one.id)
    return made


def _data(one: ProductNode | RawFileNode) -> _Entity:
    digest = one.checksum.removeprefix("sha256:")
    return {"@type": "File", "name": one.path, "contentSize": str(one.size_bytes), "sha256": digest}


def _latest(executions: Iterable[Execution]) -> datetime | None:
    return max((one.ended_at for one in executions if one.ended_at), default=None)
