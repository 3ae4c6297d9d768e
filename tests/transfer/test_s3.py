"""What is particular to object stores: parts, what is sent again, credentials, connections that break."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ccat_data_transfer.backends.errors import FileMissing, LocationTrouble, ReadBackDiffers
from ccat_data_transfer.backends.s3.address import Address
from ccat_data_transfer.backends.s3.bucket import Bucket
from ccat_data_transfer.backends.s3.errors import (
    AccessRefused,
    BucketMissing,
    CredentialsMissing,
    NothingStored,
    StoreFails,
)
from ccat_data_transfer.backends.s3.parts import PART_BYTES, part_size
from ccat_data_transfer.tar import Writable
from tests.transfer.object_store import BUCKET, ObjectStore, Road, bucket_at
from tests.transfer.support import digest

KEY = "fyst/raw/a.tar"
PATH = "raw/a.tar"
PART = 100_000
DATA = os.urandom(4 * PART + 50_000)
LARGE = DATA * 10
KEY_ID, SECRET = "CCAT_S3_COLOGNE_S3_ACCESS_KEY_ID", "CCAT_S3_COLOGNE_S3_SECRET_ACCESS_KEY"


@pytest.fixture
def bucket(object_store: ObjectStore) -> Bucket:
    return bucket_at(object_store.port, part_bytes=PART)


@pytest.fixture
def road(object_store: ObjectStore) -> Iterator[Road]:
    road = Road(object_store.port)
    yield road
    road.end()


def in_chunks(data: bytes) -> Callable[[Writable], None]:
    def write(sink: Writable) -> None:
        for start in range(0, len(data), 30_000):
            sink.write(data[start : start + 30_000])

    return write


def publish(bucket: Bucket, data: bytes = DATA) -> None:
    stored = bucket.publish(PATH, in_chunks(data), needs=len(data), checksum=digest(data))
    assert (stored.size_bytes, stored.checksum) == (len(data), digest(data))


def parts(data: bytes) -> list[bytes]:
    return [data[start : start + PART] for start in range(0, len(data), PART)]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [1, PART, PART + 1, len(DATA)])
def test_an_object_has_its_digest_in_its_metadata_and_nothing_unfinished_is_left(
    object_store: ObjectStore, bucket: Bucket, size: int
) -> None:
    publish(bucket, DATA[:size])
    assert object_store.get(KEY) == DATA[:size]
    assert object_store.metadata(KEY) == {"sha256": sha256(DATA[:size])}
    assert object_store.unfinished() == []


def test_five_terabytes_have_ten_thousand_parts_and_fifty_gigabytes_small_ones() -> None:
    assert part_size(50 * 10**9) == PART_BYTES
    assert part_size(5 * 2**40) * 10_000 >= 5 * 2**40
    assert part_size(5 * 2**40) < 5 * 2**30  # which is what a part may have


def test_an_upload_keeps_one_part_in_memory_whatever_the_size(bucket: Bucket) -> None:
    largest = 0

    def write(sink: Writable) -> None:
        nonlocal largest
        for start in range(0, len(DATA), 30_000):
            sink.write(DATA[start : start + 30_000])
            largest = max(largest, len(sink._part.getbuffer()))  # type: ignore[attr-defined]  # of a bucket it has one

    bucket.publish(PATH, write, needs=len(DATA), checksum=digest(DATA))
    assert largest == PART


def test_a_server_that_goes_away_in_the_middle_is_trouble_that_passes_and_only_missing_parts_are_sent_then(
    object_store: ObjectStore, road: Road
) -> None:
    bucket = bucket_at(road.port, part_bytes=PART)
    road.break_after(sent=2 * PART + PART // 2)
    with pytest.raises(
        StoreFails, match=r"^Location cologne/s3 \(s3://archive/fyst\) fails: .*; check the store"
    ) as error:
        publish(bucket)
    assert error.value.transient
    assert object_store.list_keys() == []
    [unfinished] = object_store.unfinished()

    road.mend()
    publish(bucket)
    sent = [request.partition("partNumber=")[2] for request in road.asked(r"^PUT .*partNumber=")]
    assert sent == ["3", "4", "5"]
    assert [unfinished["UploadId"] in request for request in road.asked("^PUT")] == [True] * 3
    assert object_store.get(KEY) == DATA
    assert object_store.unfinished() == []


def test_an_upload_that_was_begun_with_other_bytes_is_begun_anew(object_store: ObjectStore, bucket: Bucket) -> None:
    object_store.begin_upload(KEY, *parts(bytes(3 * PART)), sha256=sha256(DATA))
    publish(bucket)
    assert object_store.get(KEY) == DATA
    assert object_store.unfinished() == []


def test_an_upload_that_was_begun_with_other_parts_is_begun_anew(object_store: ObjectStore, bucket: Bucket) -> None:
    object_store.begin_upload(KEY, DATA[: PART // 2], DATA[PART // 2 : PART], sha256=sha256(DATA))
    publish(bucket)
    assert object_store.get(KEY) == DATA
    assert object_store.unfinished() == []


def test_an_upload_that_was_announced_as_something_else_does_not_count_and_is_made_anew(
    object_store: ObjectStore, bucket: Bucket
) -> None:
    object_store.begin_upload(KEY, *parts(DATA)[:2], sha256=sha256(b"what was packed before"))
    with pytest.raises(ReadBackDiffers, match=r"cologne/s3 \(s3://archive/fyst/raw/a\.tar\) does not keep what is wri"):
        publish(bucket)
    publish(bucket)
    assert object_store.metadata(KEY) == {"sha256": sha256(DATA)}
    assert object_store.unfinished() == []


@pytest.mark.parametrize("data", [DATA, b"small"], ids=["large", "small"])
def test_of_several_unfinished_uploads_none_is_left_and_those_of_other_keys_stay(
    object_store: ObjectStore, bucket: Bucket, data: bytes
) -> None:
    for _ in range(3):
        object_store.begin_upload(KEY, *parts(data)[:1], sha256=sha256(data))
    object_store.begin_upload(f"{KEY}.old", b"of somebody else")
    publish(bucket, data)
    assert [one["Key"] for one in object_store.unfinished()] == [f"{KEY}.old"]


def test_what_an_earlier_try_finished_is_read_back_and_not_sent_again(
    object_store: ObjectStore, bucket: Bucket
) -> None:
    publish(bucket)
    object_store.begin_upload(KEY, b"of a try that was overtaken")

    def fail(_: Writable) -> None:
        raise AssertionError

    stored = bucket.publish(PATH, fail, needs=len(DATA), checksum=digest(DATA))
    assert stored.checksum == digest(DATA)
    assert object_store.unfinished() == []


def test_what_an_earlier_try_finished_and_somebody_damaged_is_sent_again(
    object_store: ObjectStore, bucket: Bucket
) -> None:
    publish(bucket)
    object_store.damage(KEY, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    publish(bucket)
    assert object_store.get(KEY) == DATA


def test_an_answer_that_is_lost_does_no_harm(object_store: ObjectStore, road: Road) -> None:
    bucket = bucket_at(road.port, part_bytes=PART)
    road.lose_answer_to = rb"POST \S+uploadId="
    with pytest.raises(StoreFails):
        publish(bucket)
    road.mend()
    publish(bucket)
    assert road.asked("^(PUT|POST)") == []
    assert object_store.get(KEY) == DATA


def test_reading_goes_on_where_a_connection_breaks(object_store: ObjectStore, road: Road) -> None:
    object_store.put(KEY, LARGE)
    with bucket_at(road.port).open(PATH) as reader:
        first = reader.read(PART)
        road.break_after(received=0, once=True)
        assert first + reader.read(2 * PART) + reader.read() == LARGE
        reader.require(digest(LARGE))
    assert len(road.asked(f"^GET /archive/{KEY}")) >= 2


def test_a_proxy_that_sends_all_where_the_rest_was_asked_for_damages_nothing(
    object_store: ObjectStore, road: Road
) -> None:
    object_store.put(KEY, LARGE)
    road.header_lost = b"Range"
    with bucket_at(road.port).open(PATH) as reader:
        reader.read(PART)
        road.break_after(received=0, once=True)
        with pytest.raises(StoreFails, match=r"asked for .*a.tar from byte \d+ on, it answers HTTP 200") as error:
            reader.drain()
        assert error.value.transient
    road.header_lost = None
    with bucket_at(road.port).open(PATH) as reader:
        reader.drain()
        reader.require(digest(LARGE))


def test_an_object_that_is_replaced_while_it_is_read_is_not_read_on(object_store: ObjectStore, road: Road) -> None:
    object_store.put(KEY, LARGE)
    with bucket_at(road.port).open(PATH) as reader:
        reader.read(PART)
        object_store.damage(KEY, lambda data: data[::-1])
        road.break_after(received=0, once=True)
        with pytest.raises(StoreFails, match="PreconditionFailed"):
            reader.drain()


def test_reading_fails_in_the_end_where_every_connection_breaks(object_store: ObjectStore, road: Road) -> None:
    object_store.put(KEY, LARGE)
    with bucket_at(road.port).open(PATH) as reader:
        reader.read(PART)
        road.break_after(received=0)
        with pytest.raises(StoreFails) as error:
            reader.drain()
    assert error.value.transient


def test_credentials_are_those_of_the_location_or_else_those_of_aws(
    monkeypatch: pytest.MonkeyPatch, road: Road
) -> None:
    assert Address(location="us-east/lta_2", bucket=BUCKET).variables == (
        "CCAT_S3_US_EAST_LTA_2_ACCESS_KEY_ID",
        "CCAT_S3_US_EAST_LTA_2_SECRET_ACCESS_KEY",
    )
    bucket_at(road.port).size(PATH)
    assert "Credential=ours/" in road.seen
    for name in (KEY_ID, SECRET):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "theirs")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    bucket_at(road.port).size(PATH)
    assert "Credential=theirs/" in road.seen


def said(bucket: Bucket, kind: type[LocationTrouble]) -> str:
    with pytest.raises(kind) as error:
        publish(bucket)
    assert error.value.transient
    assert "s3cret" not in str(error.value)
    return str(error.value)


def test_missing_credentials_are_one_clear_line(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_ID)
    remedy = "set them in the environment of the transfer-worker that serves it, and start that again."
    where = "Location cologne/s3 (s3://archive/fyst) has no credentials here: "
    assert said(bucket_at(object_store.port), CredentialsMissing) == f"{where}{KEY_ID} is not set; {remedy}"
    monkeypatch.delenv(SECRET)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    neither = f"neither {KEY_ID} and {SECRET} nor those of AWS are set"
    assert said(bucket_at(object_store.port), CredentialsMissing) == f"{where}{neither}; {remedy}"


def test_wrong_credentials_are_said_with_what_to_check(object_store: ObjectStore) -> None:
    with object_store.asking_for_credentials():
        told = said(bucket_at(object_store.port), AccessRefused)
    assert "cologne/s3 (s3://archive/fyst) refuses access (InvalidAccessKeyId: " in told
    assert f"; check {KEY_ID} and {SECRET} (or those of AWS) of its transfer-worker, and what this key may do" in told


def test_a_missing_bucket_is_said_with_its_store(object_store: ObjectStore, bucket: Bucket) -> None:
    nowhere = replace(bucket, address=replace(bucket.address, bucket="nobodys"))
    store = f"http://127.0.0.1:{object_store.port}"
    told = f"Location cologne/s3 (s3://nobodys/fyst) is missing: {store} has no such bucket; make it."
    assert said(nowhere, BucketMissing) == told


def test_in_a_bucket_that_has_nothing_at_all_no_object_is_called_missing(
    object_store: ObjectStore, bucket: Bucket
) -> None:
    object_store.put("of-others/raw/a.tar", b"")
    told = r"Location cologne/s3 \(s3://archive/fyst\) has nothing at all; check its bucket and prefix"
    with pytest.raises(NothingStored, match=told) as error, bucket.open(PATH):
        pass
    assert error.value.transient
    publish(bucket)
    with pytest.raises(FileMissing), bucket.open("raw/b.tar"):
        pass


def test_a_store_that_is_not_there_is_trouble_that_passes(road: Road) -> None:
    road.close()
    assert "Location cologne/s3 (s3://archive/fyst) fails: " in said(bucket_at(road.port), StoreFails)


def test_a_location_without_a_prefix_has_its_files_at_the_top(object_store: ObjectStore, bucket: Bucket) -> None:
    publish(replace(bucket, address=replace(bucket.address, prefix="")))
    assert object_store.list_keys() == [PATH]
