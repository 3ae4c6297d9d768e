"""A real server of the S3 protocol, and a road to it that can be watched and broken."""

import http.client
import re
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from json import dumps
from typing import TYPE_CHECKING, Any

import moto.s3.models
from boto3.session import Session
from botocore.config import Config
from moto.server import ThreadedMotoServer

from ccat_data_transfer.backends.s3.address import Address
from ccat_data_transfer.backends.s3.bucket import Bucket
from ccat_ops_db.plan.marks import MARK

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

BUCKET = "archive"
ENVIRONMENT = {
    "CCAT_S3_COLOGNE_S3_ACCESS_KEY_ID": "ours",
    "CCAT_S3_COLOGNE_S3_SECRET_ACCESS_KEY": "s3cret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nowhere",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
}
"""Credentials of the location, and no others."""
REQUEST = re.compile(r"((?:GET|PUT|POST|DELETE|HEAD) /\S*) HTTP/1\.1\r\n")


class ObjectStore:
    """The server, as whoever runs it sees it."""

    def __init__(self) -> None:
        vars(moto.s3.models)["S3_UPLOAD_PART_MIN_SIZE"] = 1  # parts of real stores are larger than what is sent here
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        self.s3: S3Client = Session("operator", "secret").client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}),
        )

    @contextmanager
    def asking_for_credentials(self) -> Iterator[None]:
        """Nobody is known to it, and it asks everybody; else it asks nobody."""
        self._ask_after(b"0")
        yield
        self._ask_after(b"inf")

    def _ask_after(self, requests: bytes) -> None:
        asked = http.client.HTTPConnection("127.0.0.1", self.port)
        asked.request("POST", "/moto-api/reset-auth", body=requests)
        assert asked.getresponse().status == 200
        asked.close()

    @contextmanager
    def refusing_deletions(self) -> Iterator[None]:
        """Whoever may do everything else may not delete an object."""
        all_objects = f"arn:aws:s3:::{BUCKET}/*"
        said = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "Resource": all_objects}
        self.s3.put_bucket_policy(Bucket=BUCKET, Policy=dumps({"Version": "2012-10-17", "Statement": [said]}))
        yield
        self.s3.delete_bucket_policy(Bucket=BUCKET)

    def stop(self) -> None:
        self.s3.close()
        self._server.stop()

    def make_bucket(self) -> None:
        """An empty one, whatever there was."""
        if BUCKET in [bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]]:
            for key in self.all_keys():
                self.s3.delete_object(Bucket=BUCKET, Key=key)
            for upload in self.unfinished():
                self.s3.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
            self.s3.delete_bucket(Bucket=BUCKET)
        self.s3.create_bucket(Bucket=BUCKET)

    def list_keys(self) -> list[str]:
        """Keys of all but marks of locations."""
        return [key for key in self.all_keys() if not key.endswith(MARK)]

    def all_keys(self) -> list[str]:
        return [found["Key"] for found in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())]

    def get(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def put(self, key: str, data: bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=data)

    def metadata(self, key: str) -> dict[str, str]:
        return self.s3.head_object(Bucket=BUCKET, Key=key)["Metadata"]

    def damage(self, key: str, change: Callable[[bytes], bytes]) -> None:
        """Put other bytes there, that say they are what was there."""
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=change(self.get(key)), Metadata=self.metadata(key))

    def begin_upload(self, key: str, *parts: bytes, sha256: str = "") -> str:
        """An upload that is not finished; its id."""
        begun = self.s3.create_multipart_upload(Bucket=BUCKET, Key=key, Metadata={"sha256": sha256})["UploadId"]
        for number, part in enumerate(parts, start=1):
            self.s3.upload_part(Bucket=BUCKET, Key=key, UploadId=begun, PartNumber=number, Body=part)
        return begun

    def unfinished(self) -> list[Any]:
        return list(self.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()))


class Road:
    """A proxy that passes bytes on, remembers what was asked, and breaks when it is told to."""

    def __init__(self, port: int) -> None:
        self.seen = ""
        """What was sent, as text."""
        self.lose_answer_to: bytes | None = None
        """Pattern of a request after which the road is closed once the server has answered."""
        self.header_lost: bytes | None = None
        """Header that is taken out of each request, as some proxies do."""
        self._to = port
        self._left: dict[str, int] = {}
        self._once = False
        self._open: set[socket.socket] = set()
        self._is_closed = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def asked(self, pattern: str) -> list[str]:
        """Requests that match, since the last one of the time before the road was mended."""
        return [one for one in REQUEST.findall(self.seen) if re.search(pattern, one)]

    def break_after(self, *, once: bool = False, **bytes_left: int) -> None:
        """Close once so many bytes were `sent` or `received` from now on; for good, or only what is open then."""
        self._left, self._once = bytes_left, once

    def close(self) -> None:
        """Break what is open, and take nothing more."""
        self._is_closed = True
        self._break()

    def mend(self) -> None:
        """Be as new, and forget what was asked."""
        self._is_closed, self._left, self.seen, self.lose_answer_to = False, {}, "", None

    def end(self) -> None:
        """Give everything back."""
        self.close()
        self._server.close()

    def _break(self) -> None:
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._is_closed:
            client.close()
            return
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # or all is on its way before it breaks
        with client, socket.create_connection(("127.0.0.1", self._to)) as server, suppress(OSError):
            ways = {client: ("sent", server), server: ("received", client)}
            self._open |= set(ways)
            while readable := select.select(list(ways), [], [])[0]:
                for one in readable:
                    data = one.recv(1 << 16)
                    if not data or not self._pass_on(data, *ways[one]):
                        return

    def _pass_on(self, data: bytes, way: str, to: socket.socket) -> bool:
        """Whether the connection goes on."""
        if way == "sent" and self.header_lost:
            data = re.sub(rb"\r\n%b: [^\r]*" % self.header_lost, b"", data)
        if way == "sent":
            self.seen += data.decode("latin-1")
        elif self.lose_answer_to and re.search(self.lose_answer_to, self.seen.encode("latin-1")):
            self.close()
            return False
        left = self._left.get(way, len(data))
        to.sendall(data[:left])
        if left >= len(data):
            self._left = {**self._left, way: left - len(data)} if way in self._left else self._left
            return True
        if self._once:
            self._left = {}
        else:
            self.close()
        return False


def bucket_at(
    port: int, *, part_bytes: int = 1000, progress: Callable[[], None] = lambda: None, **where: str
) -> Bucket:
    """The bucket as a transfer uses it, which has parts of 1000 bytes."""
    values = {"location": "cologne/s3", "bucket": BUCKET, "prefix": "fyst", **where}
    address = Address(**values, endpoint_url=f"http://127.0.0.1:{port}")
    return Bucket(address=address, progress=progress, part_bytes=part_bytes)
