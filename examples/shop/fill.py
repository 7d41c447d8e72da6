"""5,000 users and 20,000 orders, as release 1 leaves them: `python fill.py`."""

import os

from sqlalchemy import create_engine, text

with create_engine(os.environ["DATABASE_URL"]).begin() as connection:
    connection.execute(
        text(
            "INSERT INTO users (name, email) SELECT 'User ' || n,"
            " CASE WHEN n % 4 > 0 THEN 'user' || n || '@example.com' END"
            " FROM generate_series(1, 5000) n"
        )
    )
    connection.execute(
        text(
            "INSERT INTO orders (user_id, total)"
            " SELECT 1 + n % 5000, (n % 9973) / 100.0 FROM generate_series(1, 20000) n"
        )
    )
