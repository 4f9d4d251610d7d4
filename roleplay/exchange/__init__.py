"""Files of others and files that people write. Hostile until read: what comes out are values, or an error that names
file and field."""
