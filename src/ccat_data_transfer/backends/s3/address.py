from dataclasses import dataclass
from pathlib import PurePosixPath

from ccat_data_transfer.backends.errors import PathLeavesLocation


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the objects of a location are."""

    location: str
    """`site/location`."""
    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def variables(self) -> tuple[str, str]:
        """Names of the environment variables that hold the access key of the location, and its secret."""
        stem = "".join(letter if letter.isalnum() else "_" for letter in self.location.upper())
        return f"CCAT_S3_{stem}_ACCESS_KEY_ID", f"CCAT_S3_{stem}_SECRET_ACCESS_KEY"

    def url(self, path: str) -> str:
        """A file as people would look for it."""
        return f"{self}/{path}"

    def key(self, path: str) -> str:
        """Key of a file; raises PathLeavesLocation for a path that means another one."""
        if path.startswith("/") or ".." in PurePosixPath(path).parts:
            raise PathLeavesLocation(self.location, self.url(path))
        return f"{self.prefix.rstrip('/')}/{path}".lstrip("/")
