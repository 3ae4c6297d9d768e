"""The `ccat` command: edges that unpack, call one verb or query, and print."""

import os
import sys
from importlib import import_module

import typer

from ccat.cli import (
    accepting,
    adopting,
    alerts,
    archiving,
    backups,
    bringing,
    cancelling,
    contract,
    damages,
    definitions,
    demo,
    descent,
    differences,
    excluding,
    explaining,
    gaps,
    groupings,
    limits,
    lineage,
    locations,
    logs,
    night,
    packages,
    pipelines,
    plans,
    processes,
    products,
    retention,
    retrying,
    retrying_packages,
    routes,
    runs,
    scans,
    sites,
    stack,
    transfers,
    triggers,
    waiting,
    withdrawing,
)
from ccat.cli.errors import refuse_unreadable, reported, run_for_programs
from ccat.wiring import find_settings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="From raw telescope data to calibrated maps, with lineage.",
)

STACK, DATA, PIPELINES, PROCESSES = "Embedded stack", "Data", "Pipelines", "Processes (one each, for containers)"

for command in (stack.up, stack.down, stack.status):
    app.command(rich_help_panel=STACK)(command)

app.command(rich_help_panel=STACK)(demo.demo)
app.command(rich_help_panel=STACK)(alerts.alerts)
app.add_typer(backups.app, name="backup", rich_help_panel=STACK)
app.command(rich_help_panel=STACK)(backups.restore)

app.add_typer(scans.app, name="scan", rich_help_panel=DATA)
app.command(rich_help_panel=DATA)(night.night)
app.command(rich_help_panel=DATA)(packages.packages)
for of_package in (retrying_packages.retry, bringing.stage, bringing.unstage, adopting.adopt):
    packages.app.command()(of_package)
app.add_typer(packages.app, name="package", rich_help_panel=DATA)
app.command("exclude", rich_help_panel=DATA)(excluding.exclude_it)
app.command("readmit", rich_help_panel=DATA)(excluding.readmit_it)
app.command(rich_help_panel=DATA)(excluding.exclusions)
app.command(rich_help_panel=DATA)(locations.locations)
app.add_typer(locations.app, name="location", rich_help_panel=DATA)
app.command(rich_help_panel=DATA)(routes.routes)
app.add_typer(routes.app, name="route", rich_help_panel=DATA)
transfers.app.command()(damages.damage)
app.add_typer(transfers.app, name="transfer", rich_help_panel=DATA)
app.command(rich_help_panel=DATA)(sites.sites)
app.add_typer(sites.app, name="site", rich_help_panel=DATA)
app.add_typer(retention.app, name="retention", rich_help_panel=DATA)

app.command(rich_help_panel=PIPELINES)(definitions.apply)
app.add_typer(groupings.app, name="grouping", rich_help_panel=PIPELINES)
app.add_typer(pipelines.app, name="pipelines", rich_help_panel=PIPELINES)
for order in (triggers.trigger, triggers.triggers, triggers.pause, triggers.resume):
    app.command(rich_help_panel=PIPELINES)(order)
app.command(rich_help_panel=PIPELINES)(gaps.gap)
app.command(rich_help_panel=PIPELINES)(limits.limit)
app.command(rich_help_panel=PIPELINES)(limits.limits)
app.command(rich_help_panel=PIPELINES)(plans.plan)
app.command(rich_help_panel=PIPELINES)(runs.runs)
for of_run in (explaining.why, logs.logs, cancelling.cancel, retrying.retry, archiving.archive):
    runs.app.command()(of_run)
app.add_typer(runs.app, name="run", rich_help_panel=PIPELINES)
app.command(rich_help_panel=PIPELINES)(retrying.failures)
app.command(rich_help_panel=PIPELINES)(accepting.accept)
app.command(rich_help_panel=PIPELINES)(differences.diff)
app.command(rich_help_panel=PIPELINES)(products.products)
app.command("lineage", rich_help_panel=PIPELINES)(lineage.show_lineage)
app.command("uses", rich_help_panel=PIPELINES)(descent.show_uses)
app.command("withdraw", rich_help_panel=PIPELINES)(withdrawing.withdraw_it)
app.command("reinstate", rich_help_panel=PIPELINES)(withdrawing.reinstate_it)
app.command(rich_help_panel=PIPELINES)(withdrawing.withdrawals)
app.command(rich_help_panel=PIPELINES)(waiting.wait)
app.add_typer(contract.app, name="contract", rich_help_panel=PIPELINES)

for name, process in processes.PROCESSES.items():
    app.command(name, rich_help_panel=PROCESSES)(process)


def main() -> None:
    """Run the command line."""
    arguments = sys.argv[1:]
    refuse_unreadable(arguments)
    find_settings()
    if "CCAT_CRASH_AT" in os.environ:
        with reported(as_json="--json" in arguments):
            import_module("ccat.crashing").arm_from_environment()
    if "--json" in arguments:
        run_for_programs(app, arguments)
    app()
