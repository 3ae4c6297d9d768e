"""What simulated instruments have in common: when they observe, and how they describe their raw files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

NAMESPACE = UUID("6c9a4e0e-3f61-5b6e-9d43-0d3ad9b7a1c4")  # of the ids that the simulated instruments give
FIRST_SCAN_UTC = time(2, tzinfo=UTC)  # 21:30 local solar time on the evening that names the night


def moment(night: date, later: timedelta) -> datetime:
    """Return the time this much after the first scan of an observing night, which is named by the evening's date."""
    return datetime.combine(night + timedelta(days=1), FIRST_SCAN_UTC) + later


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """When a scan was made, and by what."""

    name: str
    seed: int
    night: date
    start: datetime
    end: datetime
    module: str

    @property
    def identity(self) -> UUID:
        """The id that the instrument gives to the scan."""
        return uuid5(NAMESPACE, f"{self.seed}/{self.name}")

    def cards(self) -> dict[str, str]:
        """Return what a raw file says of it; FITS wants UTC without an offset."""
        begin, end = (one.replace(tzinfo=None).isoformat(timespec="milliseconds") for one in (self.start, self.end))
        return {"SCANID": self.name, "EOUID": str(self.identity), "DATE-BEG": begin, "DATE-END": end}

    def describe(self, path: Path) -> dict[str, Any]:
        """Return the scan and its raw file as whoever registers them wants to know them."""
        content = path.read_bytes()
        return {
            "id": str(self.identity),
            "scan_id": self.name,
            "file": path.name,
            "file_id": str(uuid5(self.identity, path.name)),
            "size_bytes": len(content),
            "checksum": "sha256:" + hashlib.sha256(content).hexdigest(),
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "observing_night": self.night.isoformat(),
            "instrument_module": self.module,
        }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a description or the truth."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
