"""What `witmill queries wikipedia` counted in a dump, as the sources of queries need it."""

from collections.abc import Mapping

import pyarrow as pa

from pipeline import schemas
from pipeline.errors import ConfigError, MissingInput
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from queries.database import database, register_files
from queries.redirects import follow_redirects
from queries.titles import TITLES
from queries.wikipedia import STAGE


def table_files(workspace: str, table: str) -> list[str]:
    """Return the files of one table that the stage wrote.

    Raises:
        MissingInput: if it has not finished.
        CorruptWorkspace: if a file is missing or has another size.
    """
    space = Workspace(root=workspace)
    parts = _manifest(space).tables.get(table, [])
    return [space.path(part.path) for part in parts]


def check_floors(workspace: str, floors: Mapping[str, float], *, content_only: bool = True) -> None:
    """Make sure that a dump was counted from as low as `floors`, by the names of its settings.

    Args:
        content_only: whether bigrams of content words are all that is wanted.

    Raises:
        ConfigError: naming the first floor below which nothing was recorded.
        MissingInput: if no dump has been counted there.
    """
    recorded = _manifest(Workspace(root=workspace)).settings
    if recorded.get("content_bigrams") and not content_only:
        raise ConfigError(
            f"{workspace} records bigrams of content words alone; give --content-bigrams, "
            "or run `witmill queries wikipedia` there without it"
        )
    # Both words of a pair have to be words, whichever floor is the higher.
    words = recorded.get("minimum_word_count", 0)
    lowest = max(recorded.get("minimum_bigram_word_count", 0), words)
    recorded = {**recorded, "minimum_bigram_word_count": lowest}
    for name, floor in floors.items():
        if floor < recorded.get(name, floor):
            raise ConfigError(
                f"{name} is {floor:g}, but {workspace} records from {recorded[name]:g} on; "
                f"raise it, or run `witmill queries wikipedia` there with a lower {name}"
            )


def counted_words(workspace: str) -> pa.Table:
    """Return the words of the dump with their counts."""
    with database() as connection:
        files = table_files(workspace, "words")
        register_files(connection, "words", files, schemas.WIKIPEDIA_WORDS)
        return connection.sql("SELECT word, count FROM words").to_arrow_table()


def counted_bigrams(workspace: str) -> pa.Table:
    """Return the pairs of words of the dump with count and PMI."""
    with database() as connection:
        files = table_files(workspace, "bigrams")
        register_files(connection, "bigrams", files, schemas.WIKIPEDIA_BIGRAMS)
        return connection.sql("SELECT bigram, count, pmi FROM bigrams").to_arrow_table()


def articles(workspace: str) -> pa.Table:
    """Return the articles of the dump, with the columns TITLES; pages that only tell others apart are none."""
    with database() as connection:
        files = table_files(workspace, "pages")
        register_files(connection, "pages", files, schemas.WIKIPEDIA_PAGES)
        follow_redirects(connection)
        rows = connection.sql(
            "SELECT pages.title, count(leads.title) AS redirects FROM pages "
            "LEFT JOIN leads ON leads.article = pages.title "
            "WHERE redirect_to IS NULL AND NOT disambiguation GROUP BY pages.title ORDER BY pages.title"
        )
        return rows.to_arrow_table().cast(TITLES)


def _manifest(space: Workspace) -> Manifest:
    space.require()
    if space.manifest(STAGE) is None:
        raise MissingInput(
            f"no dump of Wikipedia has been counted in {space.root}; run `witmill queries wikipedia` there"
        )
    return space.finished(STAGE)
