"""What the database refuses as it is, autogenerate says where the change stands."""

import sqlalchemy as sa
from alembic.script import Script
from test_autogenerate import Model, Project, decide, project, text_of, users

__all__ = ["project"]

AUDIT = (
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER audit AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION note()",
    "CREATE VIEW mails AS SELECT mail FROM users",
)


def members(wide: int, *, strict: bool = False, kind: type = sa.Integer) -> Model:
    """Return a model whose columns a view and a generated column read."""
    twice = "price * 2"
    return users(
        lambda: [
            sa.Column("mail", sa.String(wide)),
            sa.Column("price", sa.Numeric(wide, 2)),
            sa.Column("twice", sa.Numeric, sa.Computed(twice, persisted=True)),
            sa.Column("phone", sa.Text, nullable=not strict),
            sa.Column("size", kind),
        ]
    )


def joined(script: Script) -> str:
    """Return the text of a revision, its comments on one line."""
    return text_of(script).replace("\n# ", " ")


def test_what_reads_a_column_is_a_choice(project: Project) -> None:
    """Its type cannot be changed, though the cast is free; a trigger is asked about."""
    project.model(members(20))
    project.autogenerate("v1")
    project.upgrade()
    project.execute(*AUDIT)
    project.model(members(32, strict=True))
    texts = [joined(s) for s in project.autogenerate()]
    assert not any("op.alter_column" in text for text in texts)
    for name, reader in (("mail", "view mails"), ("price", "generated column")):
        (text,) = [t for t in texts if f"the type of column {name} " in t]
        assert "ChangeColumnType(" in text
        assert reader in text
        assert "zd.undecided(" in text
    (strict,) = [t for t in texts if "SetNotNull(" in t]
    assert 'fill="…", assured="…"' in strict
    assert "audit" in strict


def wide(*, later: bool) -> Model:
    """Return a model of two tables; `later` has a unique column more, and one less."""

    def make(metadata: sa.MetaData) -> None:
        column = sa.Column("code", sa.Integer, unique=True, nullable=False, default=0)
        code = [column] if later else []
        gone = [] if later else [sa.Column("old", sa.Text)]
        users(lambda: [sa.Column("n", sa.BigInteger if later else sa.Integer), *code])(
            metadata
        )
        users(lambda: gone, name="teams")(metadata)
        if not later:
            metadata.tables["users"].append_constraint(
                sa.UniqueConstraint("id", name="spare")
            )

    return make


def test_what_waits_for_another_of_the_run_comes_last(project: Project) -> None:
    """A drop in another table does not stand behind it, nor does one of its own."""
    project.model(wide(later=False))
    project.autogenerate("v1")
    project.upgrade()
    project.model(wide(later=True))
    scripts = project.autogenerate()
    titles = [s.doc.removeprefix("v2: ") for s in scripts]
    assert titles[-1].startswith("add unique constraint")
    assert {t.split()[0] for t in titles[:-1]} >= {"drop", "change"}
    waiting = [s.revision for s in scripts if "requires = " in text_of(s)]
    assert waiting == [scripts[-1].revision]


def test_a_comment_that_changes_with_a_name(project: Project) -> None:
    """It is set on the old column, which takes the new name with it."""
    project.model(users(lambda: [sa.Column("name", sa.Text)]))
    project.autogenerate("v1")
    project.upgrade()
    full = sa.Column("full_name", sa.Text, comment="as shown")
    project.model(users(lambda: [full._copy()]))
    said, renamed = project.autogenerate()
    assert "comment='as shown'" in text_of(said)
    decide(renamed, 0)
    project.upgrade(mode="complete")
    project.check()
    project.downgrade("base", mode="complete")
