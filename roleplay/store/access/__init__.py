"""How the store reaches a database: drivers, connections, the schema, prepared statements, reading of rows."""
