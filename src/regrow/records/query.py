"""SQL on the rows of a folder."""

import warnings
from pathlib import Path

import pyarrow as pa

from regrow.errors import RegrowError
from regrow.records.rows import read_rows, table_of


def query(folder: str | Path, sql: str) -> pa.Table:
    """What a SQL query (DuckDB's) finds in the rows of a folder of studies, the table `rows`.

    `.to_pandas()` of it is a DataFrame. What could not be read is told in warnings. Raises
    `RegrowError` where there is no such folder, or the query cannot be carried out.

        query("runs/studies", "select arm, avg(list_avg(returns)) from rows group by arm")
    """
    import duckdb

    rows, problems = read_rows(Path(folder))
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    with duckdb.connect() as connection:
        connection.register("rows", table_of(rows))
        try:
            return connection.sql(sql).to_arrow_table()
        except (duckdb.Error, AttributeError) as error:
            # Where there is no statement, there is None.
            raise RegrowError(f"the query cannot be carried out: {error}") from error
