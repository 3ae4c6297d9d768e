import pytest

from ccat_data_transfer.queues import queues_to_serve
from ccat_ops_db import models
from ccat_ops_db.lookup import UnknownName
from ccat_ops_db.states import LocationType

CCAT, COLOGNE = models.Site(short_name="ccat"), models.Site(short_name="cologne")
AT_BUFFERS = ("archiving", "deletion", "restoring", "scrubbing", "transferring", "transferring_products", "unpacking")
LOCATIONS = [
    models.DiskDataLocation(site=site, name=name, location_type=location_type)
    for site, name, location_type in (
        (CCAT, "chai_raw_data", LocationType.SOURCE),
        (CCAT, "primecam_raw_data", LocationType.SOURCE),
        (CCAT, "buffer", LocationType.BUFFER),
        (COLOGNE, "lta", LocationType.LONG_TERM_ARCHIVE),
        (COLOGNE, "ramses", LocationType.PROCESSING),
    )
]


@pytest.mark.parametrize(
    ("serves", "queues"),
    [
        (
            [],
            [
                *(f"transfer.ccat_buffer_{one}" for one in AT_BUFFERS),
                "transfer.ccat_chai_raw_data_deletion",
                "transfer.ccat_chai_raw_data_packing",
                "transfer.ccat_primecam_raw_data_deletion",
                "transfer.ccat_primecam_raw_data_packing",
                "transfer.cologne_lta_archiving",
                "transfer.cologne_lta_archiving_products",
                "transfer.cologne_lta_deletion",
                "transfer.cologne_lta_scrubbing",
                "transfer.cologne_ramses_archiving_products",
                "transfer.cologne_ramses_deletion",
                "transfer.cologne_ramses_scrubbing",
                "transfer.cologne_ramses_staging",
            ],
        ),
        (
            ["cologne"],
            [
                "transfer.cologne_lta_archiving",
                "transfer.cologne_lta_archiving_products",
                "transfer.cologne_lta_deletion",
                "transfer.cologne_lta_scrubbing",
                "transfer.cologne_ramses_archiving_products",
                "transfer.cologne_ramses_deletion",
                "transfer.cologne_ramses_scrubbing",
                "transfer.cologne_ramses_staging",
            ],
        ),
        (
            ["cologne/ramses"],
            [f"transfer.cologne_ramses_{one}" for one in ("archiving_products", "deletion", "scrubbing", "staging")],
        ),
        (
            ["ccat/chai_raw_data", "cologne/lta"],
            [
                "transfer.ccat_chai_raw_data_deletion",
                "transfer.ccat_chai_raw_data_packing",
                "transfer.cologne_lta_archiving",
                "transfer.cologne_lta_archiving_products",
                "transfer.cologne_lta_deletion",
                "transfer.cologne_lta_scrubbing",
            ],
        ),
        (["ccat/buffer"], [f"transfer.ccat_buffer_{one}" for one in AT_BUFFERS]),
    ],
)
def test_a_worker_listens_to_what_its_locations_can_do(serves: list[str], queues: list[str]) -> None:
    assert queues_to_serve(LOCATIONS, serves) == queues


def test_an_unknown_location_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match=r"There is no site or location `cologne/rameses`.*`cologne/ramses`"):
        queues_to_serve(LOCATIONS, ["cologne/rameses"])
