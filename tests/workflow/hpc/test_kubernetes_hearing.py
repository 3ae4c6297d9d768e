"""What is made of what Kubernetes says, without any cluster."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client import V1JobStatus, V1PodStatus

from ccat_workflow_manager.hpc.cluster.conclusion import Heard, Phase
from ccat_workflow_manager.hpc.cluster.marks import ExitMark, Marks, StartMark
from ccat_workflow_manager.hpc.kubernetes.hearing import cut_off, hear, pod_of, stuck
from ccat_workflow_manager.hpc.kubernetes.seeing import SeenJob, SeenPod

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
BEFORE = "2026-11-30T11:50:00Z"


def condition(kind: str, *, status: str = "True", reason: str | None = None, message: str | None = None) -> Any:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": BEFORE}


def job(*conditions: Any, **changes: Any) -> SeenJob:
    status = {"conditions": list(conditions), **changes.pop("status", {})}
    return replace(SeenJob(name="a", status=V1JobStatus.from_dict(status) or V1JobStatus()), **changes)


def pod(
    phase: str, *, state: Any = None, conditions: Any = (), ends_by: datetime | None = None, **more: Any
) -> SeenPod:
    container = {"name": "software", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    statuses = [container] if state else []
    status = {
        "phase": phase,
        "containerStatuses": statuses,
        "conditions": list(conditions),
        "startTime": BEFORE,
        **more,
    }
    read = V1PodStatus.from_dict(status) or V1PodStatus()
    return SeenPod(name="a-1", job="a", status=read, node="node-1", made_at=NOW, ends_by=ends_by)


def ended(code: int, reason: str = "Error", **more: Any) -> Any:
    return {"terminated": {"exitCode": code, "reason": reason, "startedAt": BEFORE, "finishedAt": BEFORE, **more}}


def waits(reason: str) -> Any:
    return {"waiting": {"reason": reason, "message": "why"}}


DISRUPTED = condition("DisruptionTarget", reason="PreemptionByScheduler", message="another goes first")
FAILED = condition("Failed", reason="BackoffLimitExceeded", message="limit")
UNSCHEDULABLE = condition("PodScheduled", status="False", reason="Unschedulable", message="0/3 nodes are available")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (pod("Pending", conditions=[UNSCHEDULABLE]), "Unschedulable: 0/3 nodes are available"),
        (pod("Pending", state=waits("ContainerCreating")), "its container is being made on node-1"),
        (pod("Pending", state=waits("ErrImagePull")), "its container does not start: ErrImagePull: why"),
        (pod("Pending", state=waits("ImagePullBackOff")), "its container does not start: ImagePullBackOff: why"),
        (pod("Pending", state=waits("CreateContainerConfigError")), "CreateContainerConfigError: why"),
        (replace(pod("Pending"), node=None), "it waits for a node"),
    ],
)
def test_a_pod_that_waits_says_why(seen: SeenPod, expected: str) -> None:
    heard = hear(job(), seen, now=NOW)
    assert heard.phase is Phase.PENDING
    assert expected in (heard.reason or "")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (pod("Succeeded", state=ended(0, "Completed")), {"exit_code": 0}),
        (pod("Failed", state=ended(65)), {"exit_code": 65}),
        (pod("Failed", state=ended(137)), {"exit_code": None, "reason": "signal 9 ended it"}),
        (pod("Failed", state=ended(137, "OOMKilled")), {"out_of_memory": True, "exit_code": 137}),
        (
            pod("Failed", state=ended(128, "StartError", message="no /bin/sh")),
            {"exit_code": None, "reason": "StartError: no /bin/sh"},
        ),
        (pod("Failed", state=ended(143), reason="DeadlineExceeded"), {"timed_out": True, "is_lost": False}),
        (pod("Failed", reason="DeadlineExceeded", message="too long"), {"timed_out": False, "is_lost": True}),
        (
            pod("Failed", state=ended(137), reason="Evicted", message="disk"),
            {"is_lost": True, "reason": "Evicted: disk"},
        ),
        (pod("Failed", reason="NodeLost"), {"is_lost": True, "reason": "NodeLost"}),
        (pod("Failed", reason="Terminated", message="shutdown"), {"is_lost": True, "reason": "Terminated: shutdown"}),
        (pod("Failed", reason="OutOfcpu"), {"is_lost": True}),
        (
            pod("Failed", state=ended(143), conditions=[DISRUPTED]),
            {"is_lost": True, "reason": "PreemptionByScheduler: another goes first"},
        ),
        (pod("Succeeded", state=ended(0), conditions=[DISRUPTED]), {"is_lost": False, "exit_code": 0}),
        (
            pod("Failed", state=ended(137, "OOMKilled"), conditions=[DISRUPTED]),
            {"is_lost": False, "out_of_memory": True},
        ),
        (
            pod("Failed", state=ended(137, "ContainerStatusUnknown")),
            {"is_lost": True, "reason": "its node node-1 has lost its container"},
        ),
        (
            pod("Running", state={"running": {}}, ends_by=NOW - timedelta(minutes=3)),
            {"is_lost": True, "reason": "its node node-1 does not answer"},
        ),
        (pod("Unknown", ends_by=NOW - timedelta(hours=1)), {"is_lost": True}),
        (pod("Failed", state=ended(143), ends_by=NOW), {"is_lost": True, "exit_code": None}),
        (pod("Failed", state=ended(3), ends_by=NOW), {"is_lost": False, "exit_code": 3}),
        (pod("Failed", state=ended(143)), {"is_lost": False, "exit_code": None}),
    ],
)
def test_how_a_pod_ended(seen: SeenPod, expected: dict[str, Any]) -> None:
    heard = hear(job(), seen, now=NOW)
    assert heard.phase is Phase.ENDED
    assert {name: getattr(heard, name) for name in expected} == expected
    assert heard.host == "node-1"


@pytest.mark.parametrize(
    "seen",
    [
        pod("Running", state={"running": {"startedAt": BEFORE}}),
        pod("Running", state={"running": {}}, ends_by=NOW + timedelta(seconds=5)),
        pod("Running", state={"running": {}}, ends_by=NOW - timedelta(minutes=1), conditions=[DISRUPTED]),
        pod("Unknown"),
        pod("Running", state=ended(0)),
    ],
)
def test_a_pod_that_kubernetes_has_not_seen_end_runs(seen: SeenPod) -> None:
    assert hear(job(FAILED), seen, now=NOW).phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("seen", "was_cut_off", "expected"),
    [
        (job(condition("Complete")), None, {"phase": Phase.ENDED, "exit_code": 0}),
        (job(condition("Failed", reason="DeadlineExceeded")), None, {"phase": Phase.ENDED, "timed_out": True}),
        (job(FAILED), None, {"phase": Phase.ENDED, "is_lost": True}),
        (job(FAILED), True, {"phase": Phase.ENDED, "is_lost": True}),
        (job(FAILED), False, {"phase": Phase.ENDED, "is_lost": False}),
        (job(FAILED, is_ending=True), None, {"phase": Phase.ENDED, "is_lost": True}),
        (job(status={"failed": 1}), None, {"phase": Phase.RUNNING}),
        (job(status={"succeeded": 1}), False, {"phase": Phase.RUNNING}),
        (job(status={"terminating": 1}), None, {"phase": Phase.RUNNING}),
        (job(condition("FailureTarget"), status={"failed": 1}), None, {"phase": Phase.RUNNING}),
        (job(), None, {"phase": Phase.PENDING}),
        (job(is_suspended=True), None, {"phase": Phase.PENDING}),
        (job(is_ending=True), None, {"phase": Phase.ABSENT}),
        (None, None, {"phase": Phase.ABSENT, "is_lost": False}),
        (None, False, {"phase": Phase.ABSENT, "is_lost": False}),
        (None, True, {"phase": Phase.ABSENT, "is_lost": True}),
    ],
)
def test_what_a_job_says_whose_pod_is_not_there(
    *, seen: SeenJob | None, was_cut_off: bool | None, expected: dict[str, Any]
) -> None:
    heard = hear(seen, None, now=NOW, was_cut_off=was_cut_off)
    assert {name: getattr(heard, name) for name in expected} == expected


@pytest.mark.parametrize("seen", [None, job(is_ending=True)])
def test_a_job_that_we_cancelled_is_over_when_it_is_gone(seen: SeenJob | None) -> None:
    heard = hear(seen, None, now=NOW, is_cancelled=True)
    assert (heard.phase, heard.cancelled, heard.is_lost) == (Phase.ENDED, True, False)


def test_the_pod_that_took_the_start_mark_counts_and_else_the_last() -> None:
    first = replace(pod("Running"), name="first", made_at=NOW - timedelta(minutes=1))
    second = replace(pod("Failed"), name="second")
    assert pod_of([first, second], started_as="first") is first
    assert pod_of([second, first], started_as=None) is second
    assert pod_of([], started_as="first") is None


@pytest.mark.parametrize(("was_cut_off", "is_lost"), [(None, True), (True, True), (False, False)])
def test_a_job_whose_pod_was_replaced_is_lost_unless_it_ended_by_itself(
    *, was_cut_off: bool | None, is_lost: bool
) -> None:
    other = pod("Failed", state=ended(75))
    heard = hear(job(FAILED), other, now=NOW, started_as="a-0", was_cut_off=was_cut_off)
    assert (heard.phase, heard.is_lost) == (Phase.ENDED, is_lost)
    assert not hear(job(FAILED), other, now=NOW, started_as=other.name, was_cut_off=was_cut_off).is_lost


@pytest.mark.parametrize(
    ("code", "seconds", "expected"),
    [
        (None, 0, None),
        (0, 5, False),
        (65, 5, False),
        (143, 5, True),
        (137, 5, True),
        (137, 60, False),
        (143, 61, False),
    ],
)
def test_software_was_cut_off_where_a_signal_ended_it_in_time(
    *, code: int | None, seconds: float, expected: bool | None
) -> None:
    start = StartMark(id="a-1", at=NOW.timestamp())
    end = None if code is None else ExitMark(exit_code=code, at=NOW.timestamp() + seconds, cpu_ticks=0)
    marks = Marks(has_start=True, start=start, exit=end, cancelled_at=None)
    assert cut_off(marks, time_limit=timedelta(minutes=1)) is expected


@pytest.mark.parametrize(
    ("state", "is_stuck"),
    [
        (waits("ContainerCreating"), False),
        (waits("PodInitializing"), False),
        ({"waiting": {}}, False),
        ({"running": {}}, False),
        (None, False),
        (waits("ImagePullBackOff"), True),
        (waits("InvalidImageName"), True),
        (waits("ErrImageNeverPull"), True),
        (waits("CreateContainerConfigError"), True),
        (waits("SomethingNew"), True),
    ],
)
def test_a_container_is_stuck_where_it_waits_for_something_that_is_wrong(*, state: Any, is_stuck: bool) -> None:
    found = stuck(pod("Pending", state=state))
    assert (found is not None) is is_stuck
    assert found is None or found.since == datetime(2026, 11, 30, 11, 50, tzinfo=UTC)


# Whatever it says


_MOMENTS = st.datetimes(NOW.replace(tzinfo=None) - timedelta(days=1), NOW.replace(tzinfo=None), timezones=st.just(UTC))
_TEXTS = st.sampled_from([None, "Evicted", "DeadlineExceeded", "NodeLost", "Something"])
_CONDITIONS = st.lists(
    st.builds(
        condition,
        st.sampled_from(["Complete", "Failed", "FailureTarget", "PodScheduled", "DisruptionTarget", "Ready", "New"]),
        status=st.sampled_from(["True", "False", "Unknown"]),
        reason=_TEXTS,
        message=_TEXTS,
    ),
    max_size=3,
)
_STATES = st.one_of(
    st.none(),
    st.builds(waits, st.sampled_from(["ContainerCreating", "ImagePullBackOff", "New"])),
    st.just({"running": {"startedAt": BEFORE}}),
    st.builds(ended, st.integers(0, 255), st.sampled_from(["Completed", "Error", "OOMKilled", "StartError", "New"])),
)
_PODS = st.builds(
    pod,
    st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown", "New"]),
    state=_STATES,
    conditions=_CONDITIONS,
    ends_by=st.none() | _MOMENTS,
    reason=_TEXTS,
)
_JOBS = _CONDITIONS.flatmap(
    lambda conditions: st.builds(
        job,
        *map(st.just, conditions),
        status=st.fixed_dictionaries({}, optional={"failed": st.integers(0, 1), "active": st.integers(0, 1)}),
        is_ending=st.booleans(),
        is_suspended=st.booleans(),
    )
)


@given(
    a_job=st.none() | _JOBS,
    a_pod=st.none() | _PODS,
    was_cut_off=st.none() | st.booleans(),
    started_as=st.sampled_from([None, "a-0", "a-1"]),
    is_cancelled=st.booleans(),
)
def test_whatever_kubernetes_says_no_job_ends_that_may_still_run(
    *,
    a_job: SeenJob | None,
    a_pod: SeenPod | None,
    was_cut_off: bool | None,
    started_as: str | None,
    is_cancelled: bool,
) -> None:
    heard = hear(a_job, a_pod, now=NOW, was_cut_off=was_cut_off, started_as=started_as, is_cancelled=is_cancelled)
    assert not (heard.timed_out and heard.out_of_memory)
    if heard.phase is not Phase.ENDED:
        nothing = Heard(phase=heard.phase)
        told = ("exit_code", "timed_out", "out_of_memory", "ended_at")
        assert [getattr(heard, name) for name in told] == [getattr(nothing, name) for name in told]
    if a_pod is not None and a_pod.status.phase not in {"Succeeded", "Failed"} and a_pod.ends_by is None:
        assert heard.phase in {Phase.PENDING, Phase.RUNNING}
    if heard.is_lost:
        assert heard.reason
        assert heard.phase is Phase.ENDED or (heard.phase is Phase.ABSENT and was_cut_off)
        assert not is_cancelled
        assert a_pod is None or a_pod.status.phase != "Succeeded" or started_as == "a-0"
