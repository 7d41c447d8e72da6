"""A live table, two releases of an application, and one change between them."""
