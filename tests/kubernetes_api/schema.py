"""What the API requires of a Job, and what it fills in, by its published schema and the rules that it documents."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from kubernetes.client import ApiClient, V1Container, V1Job, V1JobSpec, V1PodSpec, V1Volume
from kubernetes.utils.quantity import parse_quantity

from tests.kubernetes_api.statuses import Cause, bad_request, invalid

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_FIELDS = ("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName")
_NATIVE = ("cpu", "memory", "ephemeral-storage")
_RFC1123 = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'"
_CLIENT = ApiClient()
_Causes = Iterator[Cause]


def admit(sent: bytes) -> dict[str, Any]:
    """Return a Job as the API stores it, without what it does not know. Raises Refusal."""
    try:
        value = json.loads(sent)
        job = V1Job.from_dict(value)
    except (ValueError, TypeError) as error:
        raise bad_request(f'Job in version "v1" cannot be handled as a Job: {error}') from None
    if job is None or value.get("kind", "Job") != "Job" or value.get("apiVersion", "batch/v1") != "batch/v1":
        raise bad_request("the object provided is unrecognized (must be of type Job)")
    causes = list(_job(job))
    if causes:
        raise invalid("jobs", (job.metadata.name if job.metadata else None) or "", causes)
    known: dict[str, Any] = _CLIENT.sanitize_for_serialization(job)
    return _filled(known)


def _job(job: V1Job) -> _Causes:
    meta = job.metadata
    if meta is None or not meta.name:
        yield _required("metadata.name", "name or generateName is required")
    else:
        yield from _matching("metadata.name", meta.name, _SUBDOMAIN, longest=63)
        yield from _labels("metadata.labels", meta.labels)
        yield from _keys("metadata.annotations", meta.annotations)
    if job.spec is None:
        yield _required("spec.template.spec.containers")
    else:
        yield from _job_spec(job.spec)


def _job_spec(spec: V1JobSpec) -> _Causes:
    yield from _at_least(0, "spec.parallelism", spec.parallelism)
    yield from _at_least(0, "spec.completions", spec.completions)
    yield from _at_least(0, "spec.backoffLimit", spec.backoff_limit)
    yield from _at_least(0, "spec.activeDeadlineSeconds", spec.active_deadline_seconds)
    yield from _at_least(0, "spec.ttlSecondsAfterFinished", spec.ttl_seconds_after_finished)
    if spec.selector is not None and not spec.manual_selector:
        yield Cause("FieldValueInvalid", "spec.selector", "Invalid value: `selector` not auto-generated")
    if spec.template.metadata is not None:
        yield from _labels("spec.template.labels", spec.template.metadata.labels)
        yield from _keys("spec.template.annotations", spec.template.metadata.annotations)
    pod = spec.template.spec
    if pod is None:
        yield _required("spec.template.spec.containers")
        return
    if pod.restart_policy is None:
        yield _required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
    else:
        yield from _one_of("spec.template.spec.restartPolicy", pod.restart_policy, ("OnFailure", "Never"))
    yield from _pod(pod, at="spec.template.spec")


def _pod(pod: V1PodSpec, *, at: str) -> _Causes:
    yield from _at_least(1, f"{at}.activeDeadlineSeconds", pod.active_deadline_seconds)
    yield from _at_least(0, f"{at}.terminationGracePeriodSeconds", pod.termination_grace_period_seconds)
    yield from _keys(f"{at}.nodeSelector", pod.node_selector)
    volumes = pod.volumes or []
    yield from _unique(f"{at}.volumes", [volume.name for volume in volumes])
    for number, volume in enumerate(volumes):
        yield from _volume(volume, at=f"{at}.volumes[{number}]")
    if not pod.containers:
        yield _required(f"{at}.containers")
    yield from _unique(f"{at}.containers", [one.name for one in pod.containers])
    for number, one in enumerate(pod.containers):
        yield from _container(one, {volume.name for volume in volumes}, at=f"{at}.containers[{number}]")
    for number, toleration in enumerate(pod.tolerations or []):
        where = f"{at}.tolerations[{number}]"
        yield from _one_of(f"{where}.operator", toleration.operator or "Equal", ("Exists", "Equal", "Lt", "Gt"))
        if toleration.operator == "Exists" and toleration.value:
            yield Cause("FieldValueInvalid", where, "value must be empty when `operator` is 'Exists'")


def _volume(volume: V1Volume, *, at: str) -> _Causes:
    yield from _matching(f"{at}.name", volume.name, _LABEL, longest=63)
    sources = [name for name, value in volume if name != "name" and value is not None]
    if not sources:
        yield _required(at, "must specify a volume type")
    if len(sources) > 1:
        yield Cause("FieldValueForbidden", at, "may not specify more than 1 volume type")
    if volume.host_path is not None and ".." in volume.host_path.path.split("/"):
        yield Cause("FieldValueInvalid", f"{at}.hostPath.path", "must not contain '..'")
    if volume.persistent_volume_claim is not None and not volume.persistent_volume_claim.claim_name:
        yield _required(f"{at}.persistentVolumeClaim.claimName")


def _container(one: V1Container, volumes: set[str], *, at: str) -> _Causes:
    yield from _matching(f"{at}.name", one.name, _LABEL, longest=63)
    if not one.image:
        yield _required(f"{at}.image")
    elif one.image != one.image.strip():
        yield Cause("FieldValueInvalid", f"{at}.image", "must not have leading or trailing whitespace")
    yield from _one_of(f"{at}.imagePullPolicy", one.image_pull_policy or "Always", ("Always", "IfNotPresent", "Never"))
    yield from _volume_mounts(one, volumes, at=at)
    for number, variable in enumerate(one.env or []):
        where = f"{at}.env[{number}]"
        yield from _matching(f"{where}.name", variable.name, _ENV_NAME, longest=None)
        source = variable.value_from
        if source is not None and source.field_ref is not None:
            yield from _one_of(f"{where}.valueFrom.fieldRef.fieldPath", source.field_ref.field_path, _FIELDS)
    if one.resources is not None:
        requests, limits = one.resources.requests or {}, one.resources.limits or {}
        yield from _sizes(requests, at=f"{at}.resources.requests")
        yield from _sizes(limits, at=f"{at}.resources.limits")
        yield from _within(requests, limits, at=f"{at}.resources.requests")


def _volume_mounts(one: V1Container, volumes: set[str], *, at: str) -> _Causes:
    yield from _unique(f"{at}.volumeMounts", [mount.mount_path for mount in one.volume_mounts or []])
    for number, mount in enumerate(one.volume_mounts or []):
        where = f"{at}.volumeMounts[{number}]"
        if mount.name not in volumes:
            yield Cause("FieldValueNotFound", f"{where}.name", f'Not found: "{mount.name}"')
        if not mount.mount_path:
            yield _required(f"{where}.mountPath")
        if mount.sub_path and (mount.sub_path.startswith("/") or ".." in mount.sub_path.split("/")):
            yield Cause("FieldValueInvalid", f"{where}.subPath", "must be a relative path without '..'")


def _sizes(values: Mapping[str, str], *, at: str) -> _Causes:
    for name, text in values.items():
        size = _size(text)
        if size is None:
            message = "quantities must match the regular expression"
            yield Cause("FieldValueInvalid", f"{at}.{name}", f'Invalid value: "{text}": {message}')
        elif size < 0:
            yield Cause("FieldValueInvalid", f"{at}.{name}", "must be greater than or equal to 0")
        elif "/" in name and size % 1:
            yield Cause("FieldValueInvalid", f"{at}.{name}", "must be an integer")
        if name not in _NATIVE and "/" not in name and not name.startswith("hugepages-"):
            yield Cause("FieldValueInvalid", f"{at}.{name}", "must be a standard resource for containers")


def _within(requests: Mapping[str, str], limits: Mapping[str, str], *, at: str) -> _Causes:
    for name, text in requests.items():
        request, limit = _size(text), _size(limits.get(name, ""))
        if "/" in name and request != limit:
            yield Cause("FieldValueInvalid", at, f"must be equal to {name} limit")
        elif request is not None and limit is not None and request > limit:
            yield Cause("FieldValueInvalid", at, f"must be less than or equal to {name} limit")


def _size(text: str) -> Decimal | None:
    try:
        size: Decimal = parse_quantity(text)
    except ValueError:
        return None
    return size


def _required(field: str, more: str = "") -> Cause:
    return Cause("FieldValueRequired", field, f"Required value{': ' if more else ''}{more}")


def _matching(field: str, text: str, pattern: "re.Pattern[str]", *, longest: int | None) -> _Causes:
    if not pattern.fullmatch(text):
        yield Cause("FieldValueInvalid", field, f'Invalid value: "{text}": {_RFC1123}')
    if longest is not None and len(text) > longest:
        yield Cause("FieldValueInvalid", field, f'Invalid value: "{text}": must be no more than {longest} characters')


def _labels(field: str, labels: Mapping[str, str] | None) -> _Causes:
    yield from _keys(field, labels)
    for value in (labels or {}).values():
        if value and (len(value) > 63 or not _QUALIFIED.fullmatch(value)):
            yield Cause(
                "FieldValueInvalid", field, f'Invalid value: "{value}": a valid label must be an empty string or'
            )


def _keys(field: str, values: Mapping[str, str] | None) -> _Causes:
    for key in values or {}:
        prefix, slash, name = key.rpartition("/")
        if len(name) > 63 or not _QUALIFIED.fullmatch(name) or (slash and not _SUBDOMAIN.fullmatch(prefix)):
            yield Cause("FieldValueInvalid", field, f'Invalid value: "{key}": name part must consist of alphanumeric')


def _one_of(field: str, value: str, allowed: Iterable[str]) -> _Causes:
    if value not in allowed:
        supported = ", ".join(f'"{one}"' for one in allowed)
        yield Cause("FieldValueNotSupported", field, f'Unsupported value: "{value}": supported values: {supported}')


def _at_least(least: int, field: str, value: int | None) -> _Causes:
    if value is not None and value < least:
        yield Cause("FieldValueInvalid", field, f"Invalid value: {value}: must be greater than or equal to {least}")


def _unique(field: str, names: Iterable[str]) -> _Causes:
    known = set[str]()
    for number, name in enumerate(names):
        if name in known:
            yield Cause("FieldValueDuplicate", f"{field}[{number}].name", f'Duplicate value: "{name}"')
        known.add(name)


def _filled(job: dict[str, Any]) -> dict[str, Any]:
    """The Job with the defaults that the API documents."""
    spec = job["spec"]
    defaults = {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "manualSelector": False,
        "podReplacementPolicy": "TerminatingOrFailed",
    }
    pod_defaults = {
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
        "enableServiceLinks": True,
    }
    container_defaults = {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}
    pod = {**pod_defaults, **spec["template"]["spec"]}
    pod["containers"] = [
        {**container_defaults, "resources": {}, **one, "imagePullPolicy": one.get("imagePullPolicy") or _pulled(one)}
        for one in pod["containers"]
    ]
    template = {"metadata": {}, **spec["template"], "spec": pod}
    return {"apiVersion": "batch/v1", "kind": "Job", **job, "spec": {**defaults, **spec, "template": template}}


def _pulled(one: Mapping[str, Any]) -> str:
    _, has_tag, tag = str(one["image"]).rpartition("/")[2].partition(":")
    return "IfNotPresent" if has_tag and tag != "latest" else "Always"
