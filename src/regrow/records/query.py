"""SQL queries on the rows of a folder."""

import warnings

import pyarrow as pa

from regrow.errors import RegrowError
from regrow.files.places import Place, place
from regrow.records.rows import read_rows, table_of


def query(folder: str | Place, sql: str) -> pa.Table:
    """Runs a DuckDB SQL query on the table `rows`, which has the rows of a folder of studies.

    `.to_pandas()` turns the result into a DataFrame. Files that cannot be read cause warnings.
    Raises `RegrowError` if there is no such folder, or if the query fails.

        query("runs/studies", "select arm, avg(list_avg(returns)) from rows group by arm")
    """
    import duckdb

    rows, problems = read_rows(place(folder))
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    with duckdb.connect() as connection:
        connection.register("rows", table_of(rows))
        try:
            return connection.sql(sql).to_arrow_table()
        except (duckdb.Error, AttributeError) as error:
            # AttributeError: for an empty query, `sql` returns None.
            raise RegrowError(f"the query cannot be carried out: {error}") from error
