import pytest

from ccat_service.queues import QueueNameError, RoutingError, require_same_family, transfer_queue, workflow_queue


def test_queues_have_their_published_names() -> None:
    assert workflow_queue("ramses_processing", "staging") == "workflow.ramses_processing.staging"
    assert transfer_queue("ccat", "telescope_computer", "raw_data_package_creation") == (
        "transfer.ccat_telescope_computer_raw_data_package_creation"
    )


@pytest.mark.parametrize("location", ["", "a.b", "a b", "ä"])
def test_a_location_that_would_make_a_name_ambiguous_is_refused(location: str) -> None:
    with pytest.raises(QueueNameError, match=f"^location {location!r} cannot be part of a queue's name"):
        workflow_queue(location, "staging")


def test_the_underscore_belongs_to_locations_so_that_two_sites_never_share_a_queue() -> None:
    with pytest.raises(QueueNameError, match="no underscore"):
        transfer_queue("ccat_telescope", "computer", "deletion")


def test_a_task_goes_to_queues_of_its_own_family_only() -> None:
    require_same_family("workflow.stage", "workflow.ramses.staging")
    for task, queue in [
        ("workflow.stage", "transfer.ccat_buffer_deletion"),
        ("transfer.pack", "workflow.ramses.staging"),
        ("stage", "workflow.ramses.staging"),
        ("celery.backend_cleanup", "celery"),
        ("workflow.stage", "workflows"),
        ("workflow.stage", ""),
    ]:
        with pytest.raises(RoutingError, match=f"^task '{task}' must not be sent to queue '{queue}'"):
            require_same_family(task, queue)
