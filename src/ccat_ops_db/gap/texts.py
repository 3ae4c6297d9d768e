from importlib.resources import files

from ccat_ops_db.models.data import SOUND


def text_of(name: str) -> str:
    """Text of a file of `sql/`; of which copies a product can be had is said in one place for all of them."""
    return (files(__package__) / "sql" / f"{name}.sql").read_text().replace("{sound}", SOUND)
