"""Reference data for tests: those of `opsdb_init`, with what nobody wants to wait for left out."""

from ccat_ops_db.verbs.initialization import Seed, reference_data


def sending_at_once() -> Seed:
    """As shipped, but no transfer package waits for more."""
    shipped = reference_data()
    return {**shipped, "routes": [{**one, "package_wait_seconds": 0} for one in shipped["routes"]]}


def straight_into_the_archive() -> Seed:
    """The same, but nothing receives in Cologne: what is packed goes right into its archive."""
    seed = sending_at_once()
    return {**seed, "locations": [one for one in seed["locations"] if one["path"] != "cologne/buffer"]}
