"""Put the stack together: servers, settings, preparations, our own processes."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from ccat.stack import postgresql, redis
from ccat.stack.detach import run_detached
from ccat.stack.directory import StackDirectory, exclusive
from ccat.stack.errors import command_for
from ccat.stack.leftovers import MARK, end_leftovers
from ccat.stack.private import write_private
from ccat.stack.program import Program
from ccat.stack.services import ServiceSpec
from ccat.stack.settings_file import StackSettings, as_toml
from ccat.stack.supervisor import StopRequested, Supervisor, supervising
from ccat_service.settings import COMPONENT_PREFIXES

_TELLING: Final = "CCAT_WORKFLOW_MANAGER_ALERT_"
"""How those variables of the shell begin that hold in the stack too."""


def start_stack(
    directory: StackDirectory, program: Program, *, detach: bool = False, say: Callable[[str], None]
) -> bool:
    """Run a stack until a signal asks to stop, or in the background; False when it could not be brought up there.

    Raises:
        AlreadyRunning: there is one in this directory.
        StackError: it could not be brought up here.
    """
    run = partial(run_stack, directory, program)
    with exclusive(directory):
        if detach:
            return run_detached(directory, run, say)
        run(say)
        return True


def run_stack(directory: StackDirectory, program: Program, say: Callable[[str], None]) -> None:
    """Run a stack until a signal asks to stop. The caller holds the directory."""
    say(f"Starting the stack in {directory.root}, logs in {directory.logs}")
    end_leftovers(directory)
    try:
        with supervising(directory, say) as supervisor:
            _bring_up(supervisor, directory, program)
            say(f"The stack is up. Stop it with Ctrl-C or `{command_for('down', directory.root)}`.")
            supervisor.watch()
    except StopRequested as request:
        say(f"{request}: everything is stopped.")
    finally:
        postgresql.release(directory.postgresql)


def _bring_up(supervisor: Supervisor, directory: StackDirectory, program: Program) -> None:
    cluster = postgresql.prepare(directory.postgresql)
    supervisor.bring_up(postgresql.service(cluster))
    address = redis.start_on_free_port(directory.redis, supervisor.bring_up)
    settings = StackSettings(
        database_url=cluster.url,
        redis=address,
        pipeline_base_dir=directory.pipelines,
        sif_cache_dir=directory.images,
    )
    write_private(directory.settings, as_toml(settings))
    for preparation in program.preparations:
        supervisor.prepare(_in_stack(preparation, directory))
    settings = replace(settings, processing_location_ids=program.processing_locations(cluster.url))
    write_private(directory.settings, as_toml(settings))
    supervisor.bring_up(*(_in_stack(service, directory) for service in program.services(address)))


def _in_stack(spec: ServiceSpec, directory: StackDirectory) -> ServiceSpec:
    """The service with the settings of this stack, whatever other servers the shell names, and with its alarms."""
    telling = {name: value for name, value in os.environ.items() if name.startswith(_TELLING)}
    ours = {MARK: str(directory.root), "CCAT_CONFIG": str(directory.settings), **telling}
    place = spec.directory or directory.state.parent
    return replace(spec, environment={**ours, **spec.environment}, forgets=COMPONENT_PREFIXES, directory=place)
