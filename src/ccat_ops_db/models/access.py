from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ccat_ops_db.models.base import Base, CreatedAt, Identity, Json, is_positive

role_permission = sa.Table(
    "role_permission",
    Base.metadata,
    sa.Column("role_id", sa.ForeignKey("role.id"), primary_key=True, comment="The role."),
    sa.Column("permission_id", sa.ForeignKey("permission.id"), primary_key=True, comment="What it allows."),
)

user_role = sa.Table(
    "user_role",
    Base.metadata,
    sa.Column("user_id", sa.ForeignKey("user.id"), primary_key=True, comment="The user."),
    sa.Column("role_id", sa.ForeignKey("role.id"), primary_key=True, comment="A role of the user."),
)


class Permission(Base):
    """The right to do one action on one kind of resource."""

    __tablename__ = "permission"
    __table_args__ = (sa.CheckConstraint("name ~ '^[a-z]+:[a-z_]+$'", name="name_is_action_and_resource"),)

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="`action:resource`.")


class Role(Base):
    """A named set of permissions."""

    __tablename__ = "role"

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="admin, operator, scientist, viewer or instrument.")
    description: Mapped[str] = mapped_column(server_default="", comment="Who has it, for people.")

    permissions: Mapped[list[Permission]] = relationship(secondary=role_permission)


class User(Base):
    """A person or a program that acts."""

    __tablename__ = "user"
    __table_args__ = (is_positive("live_limit"),)

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="Login name.")
    full_name: Mapped[str] = mapped_column(server_default="", comment="Name for people.")
    active: Mapped[bool] = mapped_column(server_default=sa.true(), comment="Whether it may act at all.")
    live_limit: Mapped[int | None] = mapped_column(
        comment="Most runs of its pipelines that are live at a time; NULL: as many as for every user."
    )
    created_at: Mapped[CreatedAt]

    roles: Mapped[list[Role]] = relationship(secondary=user_role)


class ApiToken(Base):
    """A secret that lets a program act as a user; only its hash is kept."""

    __tablename__ = "api_token"

    id: Mapped[Identity]
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id"), index=True, comment="As whom it acts.")
    name: Mapped[str] = mapped_column(comment="What it is for.")
    prefix: Mapped[str] = mapped_column(sa.String(8), index=True, comment="First characters, to recognise it by.")
    token_hash: Mapped[str] = mapped_column(unique=True, comment="Hash of the secret.")
    scopes: Mapped[list[str]] = mapped_column(comment="Permissions that it is limited to.")
    expires_at: Mapped[datetime | None] = mapped_column(comment="When it stops working.")
    revoked_at: Mapped[datetime | None] = mapped_column(comment="When it was taken back.")
    created_at: Mapped[CreatedAt]


class AuditEntry(Base):
    """Who changed what, when."""

    __tablename__ = "audit_entry"
    __table_args__ = (sa.Index("ix_audit_entry_resource", "resource", "resource_id"),)

    id: Mapped[Identity]
    at: Mapped[datetime] = mapped_column(server_default=sa.func.clock_timestamp(), comment="When it happened.")
    user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user.id"), index=True, comment="Who did it.")
    action: Mapped[str] = mapped_column(comment="What was done.")
    resource: Mapped[str] = mapped_column(comment="Kind of thing that it was done to.")
    resource_id: Mapped[str] = mapped_column(comment="Which one.")
    detail: Mapped[Json] = mapped_column(server_default=sa.text("'{}'"), comment="What changed.")
