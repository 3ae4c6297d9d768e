"""How sub-groups are called, as SQL: the same names that `keys` makes."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from ccat_ops_db.grouping.keys import ALL, SLUG_LENGTH

Text: TypeAlias = sa.ColumnElement[Any]
Named: TypeAlias = tuple[str, Text, Text]
"""A dimension, its value and its label."""
_PLAIN: Final = (sa.Integer, sa.Uuid, sa.Date, sa.Boolean)
"""Types of which no value has a character that needs to be encoded; a moment has, and `1e+20`."""


def key_of(dimensions: Sequence[Named]) -> Text:
    """`dim=value,…`, percent-encoded, NULL written as `~`; `all` without dimensions."""
    parts = [_concat(sa.literal(f"{name}="), _encoded(value)) for name, value, _ in dimensions]
    return _joined(parts, ",") if parts else sa.literal(ALL)


def path_of(key: Text, labels: Text, dimensions: Sequence[str]) -> Text:
    """A readable slug of the labels, and the first 8 hexadecimal digits of the key's SHA-256."""
    slugs = [_slug(sa.cast(labels, JSONB)[name].astext) for name in dimensions]
    slug = sa.func.left(_joined(slugs, "_"), SLUG_LENGTH) if slugs else sa.literal(ALL)
    digest = sa.func.encode(sa.func.sha256(sa.func.convert_to(key, "UTF8")), "hex")
    return _concat(slug, sa.literal("-"), sa.func.left(digest, 8))


def labels_of(dimensions: Sequence[Named]) -> Text:
    """Dimension → label, as JSON."""
    pairs = [part for name, _, label in dimensions for part in (sa.literal(name), sa.cast(label, sa.Text))]
    return sa.func.jsonb_build_object(*pairs, type_=JSONB)


def _encoded(value: Text) -> Text:
    as_text = sa.cast(value, sa.Text)
    if isinstance(value.type, _PLAIN):
        return sa.func.coalesce(as_text, "~")
    plain = as_text.regexp_match("^[A-Za-z0-9_.-]*$")
    return sa.case((value.is_(None), "~"), (plain, as_text), else_=_in_sql(as_text))


def _in_sql(value: Text) -> Text:
    """Each character that is not safe becomes the percent-encoded bytes of its UTF-8 form."""
    characters = (
        sa.func.string_to_table(value, sa.null())
        .table_valued("c", with_ordinality="i", name="characters")
        .render_derived()
    )
    hexadecimal = sa.func.encode(sa.func.convert_to(characters.c.c, "UTF8"), "hex")
    encoded = sa.func.upper(sa.func.regexp_replace(hexadecimal, "(..)", r"%\1", "g"))
    safe = characters.c.c.cast(sa.Text).regexp_match("^[A-Za-z0-9_.-]$")
    one = sa.case((safe, characters.c.c.cast(sa.Text)), else_=encoded)
    ordered = sa.func.string_agg(one, aggregate_order_by(sa.literal(""), characters.c.i), type_=sa.Text)
    return sa.select(ordered).select_from(characters).scalar_subquery()


def _slug(label: Text) -> Text:
    named = sa.func.coalesce(sa.func.nullif(label, ""), "none")
    clean = sa.func.btrim(sa.func.regexp_replace(named, "[^A-Za-z0-9.+-]+", "-", "g"), "-.")
    return sa.func.coalesce(sa.func.nullif(clean, ""), "x")


def _concat(*parts: Text) -> Text:
    return sa.func.concat(*parts, type_=sa.Text)


def _joined(parts: Sequence[Text], separator: str) -> Text:
    return sa.func.concat_ws(sa.literal(separator), *parts, type_=sa.Text)
