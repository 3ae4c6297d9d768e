"""What something was made of, what was made from it, and what of that counts: commands, on runs that really ran."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import prov.model
import pytest
import requests
import urllib3
from rocrate_validator.models import ValidationSettings
from rocrate_validator.services import validate
from rocrate_validator.utils.http import HttpRequester
from typer.testing import CliRunner, Result

from ccat.cli import app
from ccat_ops_db import models
from ccat_ops_db.plan.lineage import Lineage, ProductNode, Provenance, RunNode
from ccat_ops_db.plan.ro_crate import METADATA_FILE, ro_crate
from tests.workflow.verbs.conftest import OpenWorks
from tests.workflow.verbs.works import Works

STEPS = (
    {"key": "calibrate", "group_by": ["executed_obs_unit"]},
    {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"], "products": "final", "config": "deep"},
)
GRID = 'cd "$WORKFLOW_OUTPUT_DIR"; cat $(find -L "$WORKFLOW_INPUT_DIR" -type f | sort) >science/map.txt'
PARAMETERS = {"order": 3, "clip": True, "lines": ["CO", 3, {"at": None}], "name": "M17 'deep'"}
SECRET = "hush-hush"
CONTEXT = "https://w3id.org/ro/crate/1.1/context"


@pytest.fixture(scope="module")
def made(open_works: OpenWorks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    """A map of two scans."""
    with open_works(tmp_path_factory.mktemp("lineage")) as works:
        works.observe("one ")
        works.observe("two ")
        # Defined when both are there: a first map waits for what was there by then, and takes later scans as they come.
        works.apply(
            {
                "configs": [
                    {"name": "deep", "parameters": PARAMETERS, "environment": {"ARCHIVE_TOKEN": SECRET, "A": "b"}}
                ]
            }
        )
        works.define(*STEPS, scripts={"grid": GRID})
        works.settle()
        yield works


def said(works: Works, *words: object) -> Result:
    environment = {"CCAT_OPS_DB_URL": works.engine.url.render_as_string(hide_password=False)}
    return CliRunner().invoke(app, [*map(str, words)], env=environment)


def told(works: Works, *words: object) -> str:
    answer = said(works, *words)
    assert answer.exit_code == 0, answer.output
    assert SECRET not in answer.stdout
    return answer.stdout


def map_of(works: Works) -> models.DataProduct:
    [product] = works.runs()[-1].products
    return product


class TestLineage:
    def test_what_was_made_from_a_product_is_told_by_step(self, made: Works) -> None:
        [first, *_] = made.runs()
        [product] = first.products
        found = json.loads(told(made, "lineage", product.id, "--down", "--json"))["made_from_it"]
        assert found == [{"level": 1, "pipeline": "toy", "step": "grid", "runs": 1, "products": 1, "valid": 1}]
        assert "made from product" in told(made, "lineage", product.id, "--down")

    @pytest.mark.parametrize(
        ("kind", "name", "steps"),
        [
            ("package", "{package}", ["calibrate", "grid"]),
            ("version", "toy-calibrate/1.0", ["calibrate", "grid"]),
            ("version", "toy-grid/1.0", ["grid"]),
            ("config", "deep", ["grid"]),
            ("config", "deep/1", ["grid"]),
            ("product", "{product}", ["grid"]),
            ("run", "{run}", ["grid"]),
        ],
    )
    def test_who_used_something_is_told_with_what_was_made_from_it(
        self, made: Works, kind: str, name: str, steps: list[str]
    ) -> None:
        first = made.runs()[0]
        [product], [package] = first.products, made.all(models.RunInput, run_id=first.id)
        known = {"package": package.raw_data_package_id, "product": product.id, "run": first.id}
        found = json.loads(told(made, "uses", kind, name.format_map(known), "--json"))
        assert [one["step"] for one in found["made_from_it"]] == steps
        assert {one["step"] for one in found["used_by"]} == {steps[0]}
        assert "used by" in told(made, "uses", kind, name.format_map(known))

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (("version", "toy-grid"), "`toy-grid` names no version: write SOFTWARE/VERSION, such as `gridder/1.0`."),
            (("version", "toy-grid/1.1"), "There is no version `1.1` of toy-grid. Did you mean `1.0`?"),
            (("config", "depp"), "There is no config `depp`. Did you mean `deep`?"),
            (("config", "deep/2"), "There is no revision `2` of config deep. Did you mean `1`?"),
            (("package", "4711"), "There is no raw package 4711; `ccat packages` lists them."),
            (("product", "4711"), "There is no data product 4711; `ccat products` lists them."),
            (("run", "one"), "A run is called by its number, and `one` is none; `ccat runs` lists them."),
        ],
    )
    def test_what_is_not_there_is_told(self, made: Works, words: tuple[str, str], error: str) -> None:
        answer = said(made, "uses", *words)
        assert (answer.exit_code, answer.stdout) == (1, "")
        assert answer.stderr.startswith(f"error: {error}"[:40])


class TestExports:
    def test_prov_json_is_read_by_its_own_library(self, made: Works, tmp_path: Path) -> None:
        file = tmp_path / "lineage.json"
        told(made, "lineage", map_of(made).id, "--format", "prov-json", "-o", file)
        document = prov.model.ProvDocument.deserialize(content=file.read_text(), format="json")
        assert SECRET not in file.read_text()
        kinds: dict[type[prov.model.ProvRecord], int] = {
            prov.model.ProvEntity: 7,
            prov.model.ProvActivity: 3,
            prov.model.ProvAgent: 2,
        }
        kinds |= {prov.model.ProvGeneration: 3, prov.model.ProvUsage: 4, prov.model.ProvAssociation: 3}
        kinds |= {prov.model.ProvDerivation: 4, prov.model.ProvMembership: 2}
        assert {kind: len(list(document.get_records(kind))) for kind in kinds} == kinds
        again = prov.model.ProvDocument.deserialize(content=document.serialize(format="json"), format="json")
        assert again == document
        [grid] = [one for one in json.loads(file.read_text())["activity"].values() if "ccat:parameter" in one]
        written = dict(one.split("=", 1) for one in grid["ccat:parameter"])
        assert {name: json.loads(value) for name, value in written.items()} == PARAMETERS

    def test_programs_are_told_what_was_written(self, made: Works, tmp_path: Path) -> None:
        product, file = map_of(made).id, tmp_path / "lineage.json"
        answer = json.loads(told(made, "lineage", product, "--format", "prov-json", "-o", file, "--json"))
        assert answer == {"product": product, "format": "prov-json", "output": str(file), "runs": 3}

    def test_a_crate_of_many_runs_takes_as_long_for_each_as_one_of_few(self) -> None:
        looks = []

        class Watched(ProductNode):
            def __getattribute__(self, name: str) -> Any:
                if name == "run_id":
                    looks.append(name)
                return super().__getattribute__(name)

        one = RunNode(0, "toy", "grid", {}, "toy", "1.0", "", None, None, "missing", (), (), {}, ())
        products = {number: Watched(number, number, "a", "science", "current", 1, "") for number in range(100)}
        runs = {number: replace(one, id=number) for number in products}
        crate = ro_crate(Provenance("it", Lineage(products[0], runs, products, {}), {}))
        assert len([one for one in crate[METADATA_FILE]["@graph"] if one.get("result")]) == 1 + len(runs)
        assert len(looks) == len(products)

    @pytest.mark.parametrize("profile", ["process-run-crate", "workflow-run-crate"])
    def test_an_ro_crate_keeps_its_profile(self, made: Works, tmp_path: Path, profile: str) -> None:
        crate = tmp_path / "crate"
        told(made, "lineage", map_of(made).id, "--format", "ro-crate", "-o", crate)
        assert SECRET not in (crate / "ro-crate-metadata.json").read_text()
        assert issues(crate, profile) == []

    def test_a_crate_that_breaks_its_profile_is_found(self, made: Works, tmp_path: Path) -> None:
        crate = tmp_path / "crate"
        told(made, "lineage", map_of(made).id, "--format", "ro-crate", "-o", crate)
        metadata = crate / "ro-crate-metadata.json"
        document = json.loads(metadata.read_text())
        document["@graph"] = [one for one in document["@graph"] if one["@type"] != "CreateAction"]
        metadata.write_text(json.dumps(document))
        assert issues(crate, "workflow-run-crate")

    def test_nothing_is_overwritten(self, made: Works, tmp_path: Path) -> None:
        answer = said(made, "lineage", map_of(made).id, "--format", "ro-crate", "-o", tmp_path)
        assert (answer.exit_code, list(tmp_path.iterdir())) == (1, [])
        assert "is there already; name another place." in answer.stderr

    @pytest.mark.parametrize(
        "words", [("--format", "ro-crate"), ("-o", "x"), ("--down", "--format", "ro-crate", "-o", "x")]
    )
    def test_options_that_make_no_sense_together_are_refused(self, made: Works, words: tuple[str, ...]) -> None:
        assert said(made, "lineage", 1, *words).exit_code == 2


def issues(crate: Path, profile: str) -> list[str]:
    """What the validator finds against a profile, with the context at hand that nobody may fetch."""
    logging.disable()
    try:
        settings = ValidationSettings(
            rocrate_uri=str(crate),
            profile_identifier=profile,
            offline=True,
            cache_path=crate.parent / "cache",
            skip_availability_check=True,
        )
        _keep(CONTEXT, files("rocrate").joinpath("data/ro-crate.jsonld").read_bytes())
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of what the validator is made of
            return [str(one.message) for one in validate(settings).get_issues()]
    finally:
        HttpRequester.reset()
        logging.disable(logging.NOTSET)


def _keep(url: str, content: bytes) -> None:
    answer: Any = requests.Response()
    answer.status_code, answer.url, answer._content = 200, url, content
    answer.headers["Content-Type"] = "application/ld+json"
    answer.raw = urllib3.HTTPResponse(io.BytesIO(content), status=200, preload_content=False, request_url=url)
    answer.request = requests.Request("GET", url).prepare()
    HttpRequester().session.cache.save_response(answer)


class TestRecords:
    def test_what_is_secret_in_an_environment_is_recorded_by_its_digest(self, made: Works) -> None:
        environment = made.runs()[-1].attempts[0].environment
        assert environment is not None
        assert environment["A"] == "b"
        assert environment["ARCHIVE_TOKEN"].startswith("(secret) sha256:")
        assert SECRET not in json.dumps(environment)
